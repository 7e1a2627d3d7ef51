"""Answers to prompts, with or without earlier turns, as ChatGLM-6B is tuned on them.

Source: the P-tuning program of ChatGLM-6B's repository.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from etils import epath

from glm_jax.chat.chatglm import rounds_prompt
from glm_jax.chat.turns import Turn
from glm_jax.errors import UsageError
from glm_jax.generate.prompt import Prompt, chat_prompt
from glm_jax.model.chatglm_inputs import SpecialIds, context_length, positions_of
from glm_jax.seq2seq.rows import RowLayout
from glm_jax.seq2seq.source import Source, SourceEncoder
from glm_jax.seq2seq.task import GIVEN, TEXT, Seq2SeqTask
from glm_jax.tasks.example import Example
from glm_jax.tasks.files import json_lines
from glm_jax.tasks.sequence import Row, padded
from glm_jax.tokenizer import Tokenizer
from glm_jax.tokenizer.chatglm import ChatGLMTokenizer

NAME = "answers"
METRICS = ("bleu-4", "rouge-1", "rouge-2", "rouge-l")
# The prompt without rounds, of an example without earlier turns.
_BARE = "bare_prompt"
# What the file of a split may be called.
_FILES: Mapping[str, Sequence[str]] = {
    "train": ("train.jsonl", "train.json"),
    "dev": ("val.jsonl", "dev.jsonl", "val.json", "dev.json"),
    "test": ("test.jsonl", "test.json"),
}


@dataclass(frozen=True)
class AnswerFields:
    """What the fields of a line are called.

    Attributes:
      prompt: the question.
      answer: what is learnt.
      history: earlier turns, a list of pairs; "" for data without. With it, prompts that are
        learnt have rounds also where there is no earlier turn.
      prefix: text before every prompt.
    """

    prompt: str = "prompt"
    answer: str = "response"
    history: str = ""
    prefix: str = ""


def answers_task(fields: AnswerFields, target_length: int) -> Seq2SeqTask:
    """The task for data of one's own.

    Args:
      fields: of its lines.
      target_length: T, which references are shortened to, as outputs are.
    """
    return Seq2SeqTask(
        name=NAME,
        read=partial(_read, fields),
        source=_source,
        published_at="",
        files=_FILES,
        target=_target,
        asked=lambda inputs: Example(GIVEN, fields.prefix + inputs[TEXT]),
        metrics=METRICS,
        form=AnswerForm(),
        reference=partial(_reference, target_length),
    )


class AnswerForm:
    """Rows of `prompt [gMASK] sop answer eop`, of which all after [gMASK] is learnt."""

    def row(self, layout: RowLayout, source: Source, target: Sequence[int]) -> Row:
        """A row to train on; arrays as `one_blank_row` makes them.

        Of the answer, T - 2 ids are kept. Its pads, if a text has them, are not learnt.
        """
        special, total = layout.special, layout.source_length + layout.target_length
        pad = special["pad"]
        answer = [*target[: max(layout.target_length - 2, 0)], special["eop"]]
        ids = [*source.ids, special["sop"], *answer]
        names = SpecialIds.of(special)
        context = context_length(ids, names)
        positions = positions_of(ids, names, two_dimensional=layout.block_positions)
        targets, loss_mask = np.full(total, pad, np.int32), np.zeros(total, np.float32)
        targets[: len(ids) - 1] = ids[1:]
        loss_mask[context - 1 : len(ids) - 1] = 1
        loss_mask[targets == pad] = 0
        position_ids = np.zeros((2, total), np.int32)
        position_ids[:, : len(ids)] = positions
        return {
            "tokens": padded(ids, total, pad),
            "targets": targets,
            "loss_mask": loss_mask,
            "position_ids": position_ids,
            "prefix_length": np.asarray(context, np.int32),
        }

    def prompt(self, source: Source, special: Mapping[str, int]) -> Prompt:
        """What an answer is written to; a literal sop in the text starts the answer's part."""
        return chat_prompt([*source.ids, special["sop"]], special)

    def written_to(self, example: Example, source_length: int) -> tuple[Example, int]:
        """A prompt without earlier turns is bare, and one token less is kept of prompts."""
        bare = example.meta.get(_BARE, example.text_a)
        return replace(example, text_a=bare), source_length - 1


def _source(example: Example, encoder: SourceEncoder) -> Source:
    """The prompt, whose end is left out where it is too long, and [gMASK]."""
    special = encoder.tokenizer.special
    start = [] if isinstance(encoder.tokenizer, ChatGLMTokenizer) else [encoder.start]
    mask = special.get("gMASK", encoder.mask)
    room = max(encoder.length - 1 - len(start), 0)
    ids = [*start, *encoder.encode(example.text_a)[:room], mask]
    return Source(tuple(ids), (len(ids) - 1,))


def _target(example: Example) -> Sequence[str]:
    if example.text_b is None:
        raise UsageError(f"example {example.guid} has no answer")
    return (example.second,)


def _reference(target_length: int, example: Example, tokenizer: Tokenizer) -> str:
    ids = tokenizer.encode(example.second)
    return tokenizer.decode(ids[: max(target_length - 2, 0)])


def _read(fields: AnswerFields, folder: epath.Path, split: str) -> list[Example]:
    """The lines with a prompt and an answer; a test split needs no answers."""
    found = [folder / name for name in _FILES[split] if (folder / name).is_file()]
    if not found:
        raise UsageError(f"{folder} has none of {', '.join(_FILES[split])}")
    examples = []
    for number, row in enumerate(json_lines(found[0]), 1):
        where = f"{found[0]}, line {number}"
        prompt = _text(row[fields.prompt], fields.prompt, where)
        answer = row.get(fields.answer) if split == "test" else row[fields.answer]
        answer = None if answer is None else _text(answer, fields.answer, where)
        if not prompt or answer == "":
            continue
        meta = {}
        if fields.history:
            turns = _turns(row[fields.history], fields.history, where)
            meta = {} if turns else {_BARE: fields.prefix + prompt}
            prompt = rounds_prompt(turns, prompt)
        guid = f"{split}-{len(examples)}"
        examples.append(Example(guid, fields.prefix + prompt, answer, meta=meta))
    return examples


def _text(value: Any, name: str, where: str) -> str:
    if not isinstance(value, str):
        raise UsageError(f"{where}: expected text in the field {name!r}, found {value!r}")
    return value


def _turns(value: Any, name: str, where: str) -> list[Turn]:
    good = isinstance(value, list) and all(
        isinstance(turn, list) and len(turn) == 2 and all(isinstance(text, str) for text in turn)
        for turn in value
    )
    if not good:
        raise UsageError(f"{where}: expected a list of pairs of texts in the field {name!r}")
    return [Turn(*turn) for turn in value]


TASKS = (answers_task(AnswerFields(), 64),)
