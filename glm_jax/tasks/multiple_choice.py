"""Multiple choice without finetuning: JSON lines with a question and its choices.

Source: the original's zero-shot evaluation (reference-finetune.md, section 8).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from glm_jax.errors import UsageError
from glm_jax.io.listing import list_files
from glm_jax.io.paths import resolve_path
from glm_jax.tasks.example import Example
from glm_jax.tasks.files import json_lines
from glm_jax.tasks.sequence import Layout, Row, cloze_row, stack, unidirectional_row
from glm_jax.tokenizer import Tokenizer


def read_multiple_choice(source: str) -> list[Example]:
    """Examples of one .jsonl file, or of a folder or glob pattern of them.

    A line has `inputs_pretokenized`, `choices_pretokenized` and `label`, the index of the right
    choice (0 where it is missing). The guid is the number of the line in its file.

    Raises:
      UsageError: there is no such file, or a line lacks a field.
    """
    examples = []
    paths = [resolve_path(file.location) for file in list_files(source).files]
    paths = [path for path in paths if path.suffix == ".jsonl"]
    if not paths:
        raise UsageError(f"{source} matches no file that ends in .jsonl")
    for path in paths:
        for number, row in enumerate(json_lines(path)):
            try:
                text, choices = row["inputs_pretokenized"], row["choices_pretokenized"]
            except KeyError as error:
                raise UsageError(f"{path}, line {number + 1}: no field {error}") from error
            label = int(row.get("label", 0))
            if not 0 <= label < len(choices):
                raise UsageError(
                    f"{path}, line {number + 1}: label {label} of {len(choices)} choices"
                )
            meta = {"choices": list(choices)}
            examples.append(Example(str(number), text, None, label, number, len(choices), meta))
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
            f"example {example.guid}: a choice of {max(map(len, answers))} tokens leaves no room "
            f"for the text in a sequence of {sequence_length}"
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
