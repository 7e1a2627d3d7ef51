"""Multiple choice without finetuning: JSON lines with a question and its choices.

A row has `inputs_pretokenized`, `choices_pretokenized` and `label`, the index of the right choice.
Source: the original's zero-shot evaluation (reference-finetune.md, section 8).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

import numpy as np

from glm_jax.errors import UsageError
from glm_jax.tasks.example import Example
from glm_jax.tasks.files import Row as FileRow
from glm_jax.tasks.files import origin_of
from glm_jax.tasks.patterns import Pattern
from glm_jax.tasks.sequence import Layout, Row, cloze_row, stack, unidirectional_row
from glm_jax.tasks.task import Task
from glm_jax.tokenizer import Tokenizer


def _examples(rows: Sequence[FileRow], split: str) -> list[Example]:
    """The guid is the number of the row in its file; a missing label is 0."""
    examples = []
    number, last_file = -1, ""
    for index, row in enumerate(rows):
        file, _, _ = (origin := origin_of(row, index)).rpartition(", line")
        number, last_file = (number + 1 if file == last_file else 0), file
        text, choices = row["inputs_pretokenized"], row["choices_pretokenized"]
        label = row.get("label", 0)
        if not isinstance(choices, list) or not choices:
            raise UsageError(f"{origin}: choices_pretokenized is {choices!r}; expected choices")
        if not isinstance(label, int) or not 0 <= label < len(choices):
            raise UsageError(f"{origin}: label {label!r} of {len(choices)} choices")
        meta = {"choices": list(choices), "file": PurePath(file).stem}
        examples.append(
            Example(str(number), text, None, int(label), str(number), len(choices), meta)
        )
    return examples


def encode_multiple_choice(
    example: Example,
    tokenizer: Tokenizer,
    *,
    sequence_length: int,
    unidirectional: bool = False,
    block_positions: bool = True,
) -> Row:
    """One example: a row per choice, whose tokens are scored without an end-of-piece token.

    A text that is too long loses its beginning, but keeps its mask.

    Args:
      example: of `read_multiple_choice`.
      tokenizer: of the model.
      sequence_length: L.
      unidirectional: predict text and choice from left to right, after [gMASK].
      block_positions: whether the model has block positions.

    Returns:
      tokens, targets, loss_mask [C, L], position_ids [C, 2, L], prefix_length [C], label [].

    Raises:
      UsageError: a choice is as long as the sequence, or the tokenizer has no [gMASK] and one is
        needed.
    """
    layout = Layout(tokenizer.special, sequence_length, block_positions)
    mask = tokenizer.special["MASK"]
    text = tokenizer.encode(example.text_a)
    if unidirectional and "gMASK" not in tokenizer.special:
        raise UsageError("this tokenizer has no [gMASK], which unidirectional scores need")
    if not unidirectional and mask not in text:
        text = [*text, mask]
    answers = [tokenizer.encode(choice) for choice in example.meta["choices"]]
    # ENC and eos, or ENC and gMASK; sop takes the place of an answer's last token.
    room = sequence_length - max(map(len, answers)) - 2
    if room < 1:
        raise UsageError(
            f"a choice of {max(map(len, answers))} tokens needs a sequence length of "
            f"{sequence_length + 1 - room}, more than {sequence_length}"
        )
    text = _last(text, room, None if unidirectional else mask)
    build = unidirectional_row if unidirectional else cloze_row
    rows = [build(layout, text, answer) for answer in answers]
    return stack(rows) | {"label": np.asarray(example.label, np.int32)}


def _last(ids: Sequence[int], room: int, kept: int | None) -> Sequence[int]:
    """The last `room` ids, or those from the last `kept` one on if it is further left."""
    start = max(len(ids) - room, 0)
    if kept is not None:
        last = len(ids) - 1 - list(reversed(ids)).index(kept)
        start = min(start, last)
    return ids[start : start + room]


def _encode(unidirectional: bool):
    def encode(
        example: Example, tokenizer: Tokenizer, sequence_length: int, block_positions: bool
    ) -> Mapping[str, Any]:
        return encode_multiple_choice(
            example,
            tokenizer,
            sequence_length=sequence_length,
            unidirectional=unidirectional,
            block_positions=block_positions,
        )

    return encode


def _no_pattern(example: Example, pattern: int) -> list[Pattern]:
    raise UsageError("multiple choice takes its texts as they are, without patterns")


def _task(name: str, unidirectional: bool) -> Task:
    return Task(
        name=name,
        labels=(),
        files={"dev": ("*.jsonl",)},
        any_files=True,
        texts=("inputs_pretokenized", "choices_pretokenized.*"),
        examples=_examples,
        pattern=_no_pattern,
        num_patterns=1,
        encode=_encode(unidirectional),
        variable_choices=True,
        group=lambda example: example.meta["file"],
        prediction=lambda example, choice: choice,
    )


TASKS = (_task("multichoice", False), _task("multichoice-unidirectional", True))
