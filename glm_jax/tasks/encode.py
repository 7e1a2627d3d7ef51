"""Examples of tasks -> rows of arrays, as cloze questions or as inputs of classification.

Source: the original's `PVP` and data builders (reference-finetune.md, sections 1, 3 and 4).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from glm_jax.errors import UsageError
from glm_jax.tasks.example import Example
from glm_jax.tasks.patterns import Pattern
from glm_jax.tasks.registry import find_task
from glm_jax.tasks.sequence import Layout, Row, cloze_row, context_row, padded, stack
from glm_jax.tasks.task import Segments, Task
from glm_jax.tasks.tokens import (
    PROMPT,
    Prompts,
    joined,
    single_tokens,
    tokenize,
    truncate,
)
from glm_jax.tokenizer import Tokenizer


def encode_example(
    task: str | Task,
    example: Example,
    tokenizer: Tokenizer,
    *,
    sequence_length: int,
    pattern: int = 0,
    cloze: bool = True,
    multi_token: bool = False,
    segment_length: int = 0,
    num_prompt_tokens: int = 0,
    prefix_prompt: int = 0,
    block_positions: bool = True,
    negatives: bool | None = None,
) -> Row:
    """One example as arrays; C is the number of its answers and L the sequence length.

    Args:
      task, example, tokenizer, sequence_length: what is encoded, for what.
      pattern: id of the pattern.
      cloze: whether the model fills a blank; else its input is that of a classifier.
      multi_token: score the tokens of verbalizers, as tasks that score answers do.
      segment_length: tokens of an answer that are scored at a time; 0 for all of them. Each
        segment has a row of its own, with those before it in its context.
      num_prompt_tokens: continuous prompts shared by the slots of the pattern.
      prefix_prompt: continuous prompts before the pattern.
      block_positions: whether the model has block positions.
      negatives: WSC: score the antecedent against wrong ones. None: if the example has some.

    Returns:
      tokens, loss_mask [L], position_ids [2, L], prefix_length, label []. Where answers are
      scored: all but label with a leading axis C, targets [C, L], and segment_ids [C] under
      `segment_length`. Where verbalizers are: targets [labels]. Cloze rows have prompt_positions
      too ([P] or [C, P]); tokens are 0 there.

    Raises:
      UsageError: there is no such pattern or label, a verbalizer is several tokens, parts don't
        fit, or there are prompts for a pattern without slots.
    """
    task = find_task(task)
    layout = Layout(tokenizer.special, sequence_length, block_positions)
    encoder = _Encoder(tokenizer, layout, Prompts(num_prompt_tokens, prefix_prompt))
    try:
        label = task.label_index(example)
        if task.encode is not None:
            row = dict(task.encode(example, tokenizer, sequence_length, block_positions))
        elif not cloze:
            row = encoder.classification(task.segments(example))
        else:
            questions = task.questions(example, pattern, with_prompts=encoder.prompts.total > 0)
            if task.verbalizers is not None:
                row = encoder.verbalizers(questions[0], task, pattern, multi_token, segment_length)
            elif task.answer_alone and not (len(questions) > 1 if negatives is None else negatives):
                row = encoder.row(questions[0], encoder.answer(questions[0]))
            else:
                row = encoder.choices(questions, segment_length)
                label = label if task.choose is None else task.choose(example)
    except UsageError as error:
        raise UsageError(f"example {example.guid} of task {task.name}: {error}") from error
    return row | {"label": np.asarray(label, np.int32)}


def encode_priming_text(
    task: str | Task,
    example: Example,
    tokenizer: Tokenizer,
    *,
    sequence_length: int,
    pattern: int = 0,
    multi_token: bool = False,
) -> list[int]:
    """The cloze question with the right answer in place of its mask, from ENC to eos.

    What the pretraining objective is trained on together with the task (`block_lm_ratio`).

    Args:
      task, example, tokenizer, sequence_length: what is encoded, for what.
      pattern: id of the pattern.
      multi_token: whether verbalizers may have several tokens.

    Raises:
      UsageError: as `encode_example`.
    """
    task = find_task(task)
    index = task.label_index(example) if task.choose is None else task.choose(example)
    encoder = _Encoder(tokenizer, Layout(tokenizer.special, sequence_length), Prompts())
    questions = task.questions(example, pattern)
    if task.verbalizers is None:
        question = questions[min(index, len(questions) - 1)]
        answer = encoder.answer(question)
        context, filling = encoder.context(question, answer), answer[:-1]
    else:
        words = task.verbalizers(pattern)
        if multi_token:
            answered = replace(questions[0], answer=words[task.labels[index]])
            answer = encoder.answer(answered)
            context, filling = encoder.context(answered, answer), answer[:-1]
        else:
            context = encoder.context(questions[0], None)
            filling = single_tokens(words, task.labels, tokenizer.encode_text)[index : index + 1]
    mask = encoder.mask_index(context)
    special = tokenizer.special
    return [special["ENC"], *context[:mask], *filling, *context[mask + 1 :], special["eos"]]


def encode_shared_context(
    task: str | Task,
    example: Example,
    tokenizer: Tokenizer,
    *,
    sequence_length: int,
    answer_length: int,
    pattern: int = 0,
    block_positions: bool = True,
) -> Row:
    """The context once, and its answers as rows that continue it.

    Args:
      task: one that scores answers of one context, or its name.
      example: of this task.
      tokenizer: of the model.
      sequence_length: L, of the context.
      answer_length: A; longer answers are cut.
      pattern: id of the pattern.
      block_positions: whether the model has block positions.

    Returns:
      tokens [L], position_ids [2, L], prefix_length, label [] of the context; answer_tokens,
      answer_targets, answer_loss_mask [C, A], answer_position_ids [C, 2, A].

    Raises:
      UsageError: as `encode_example`.
    """
    task = find_task(task)
    layout = Layout(tokenizer.special, sequence_length, block_positions)
    encoder = _Encoder(tokenizer, layout, Prompts())
    questions = task.questions(example, pattern)
    context = encoder.context(questions[0], None)
    # ENC comes before the context's ids.
    position = 1 + context.index(tokenizer.special["MASK"])
    answers = [
        _continuation(layout, encoder.answer(question)[:answer_length], answer_length, position)
        for question in questions
    ]
    row = context_row(layout, context) | stack(answers)
    return row | {"label": np.asarray(task.label_index(example), np.int32)}


def _continuation(layout: Layout, answer: Sequence[int], length: int, position: int) -> Row:
    size = len(answer)
    positions = np.zeros((2, length), np.int32)
    positions[0, :size] = position
    positions[1, :size] = np.arange(1, size + 1) if layout.block_positions else 1
    eos, sop = layout.special["eos"], layout.special["sop"]
    return {
        "answer_tokens": padded([sop, *answer[:-1]], length, eos),
        "answer_position_ids": positions,
        "answer_targets": padded(answer, length, 0),
        "answer_loss_mask": (np.arange(length) < size).astype(np.float32),
    }


@dataclass(frozen=True)
class _Encoder:
    """Encodes the questions of one example with one tokenizer into rows of one layout."""

    tokenizer: Tokenizer
    layout: Layout
    prompts: Prompts
    encoded: dict[str, list[int]] = field(default_factory=dict)

    def encode(self, text: str) -> list[int]:
        """The ids of a text; what several questions have in common is tokenized once."""
        if text not in self.encoded:
            self.encoded[text] = self.tokenizer.encode(text)
        return list(self.encoded[text])

    def answer(self, question: Pattern) -> list[int]:
        """The ids of the answer that is scored, the end of the piece included."""
        assert question.answer is not None
        return [*self.encode(question.answer), self.layout.special["eop"]]

    def context(self, question: Pattern, answer: Sequence[int] | None) -> list[int]:
        """Ids after ENC and before eos, cut so that the answer fits behind them."""
        mask = self.layout.special["MASK"]
        first, second = tokenize(question, self.encode, mask, self.prompts)
        # ENC, eos, and the answer; sop takes its place where there is none.
        reserved = 2 + (1 if answer is None else len(answer))
        truncate(first, second, reserved, self.layout.sequence_length)
        return joined((*first, *second))

    def mask_index(self, context: Sequence[int]) -> int:
        """Index of the last mask."""
        return len(context) - 1 - context[::-1].index(self.layout.special["MASK"])

    def row(self, question: Pattern, answer: Sequence[int] | None) -> Row:
        """One row: a question with its answer, or without one for verbalizers."""
        return _with_prompts(cloze_row(self.layout, self.context(question, answer), answer))

    def verbalizers(
        self, question: Pattern, task: Task, pattern: int, multi_token: bool, segment_length: int
    ) -> Row:
        """One row at whose mask verbalizers are compared, or one per verbalizer's tokens."""
        assert task.verbalizers is not None
        words = task.verbalizers(pattern)
        if multi_token:
            answers = [replace(question, answer=words[label]) for label in task.labels]
            return self.choices(answers, segment_length)
        targets = single_tokens(words, task.labels, self.tokenizer.encode_text)
        return self.row(question, None) | {"targets": np.asarray(targets, np.int32)}

    def choices(self, questions: Sequence[Pattern], segment_length: int) -> Row:
        """One row per answer, or per segment of one."""
        rows, segments = [], []
        for number, question in enumerate(questions):
            answer = self.answer(question)
            if not segment_length:
                rows.append(self.row(question, answer))
                continue
            context = self.context(question, answer)
            mask = self.mask_index(context)
            for start in range(0, len(answer), segment_length):
                known = [*context[:mask], *answer[:start], *context[mask:]]
                segment = answer[start : start + segment_length]
                rows.append(_with_prompts(cloze_row(self.layout, known, segment)))
                segments.append(number)
        stacked = stack(rows)
        return stacked | ({"segment_ids": np.asarray(segments, np.int32)} if segments else {})

    def classification(self, inputs: Segments | Sequence[Segments]) -> Row:
        """A row of a classifier's input, or one per choice."""
        if not isinstance(inputs, Segments):
            return stack([self.classification(segments) for segments in inputs])
        ids = self.encode(inputs.first)
        if inputs.second is not None:
            ids.append(self.layout.special["sep"])
            ids += self.encode(inputs.second)
            ids += self.encode(inputs.appended)
        return context_row(self.layout, ids)


def _with_prompts(row: Row) -> Row:
    """The row with the indices of its prompts, whose tokens become 0."""
    positions = np.flatnonzero(row["tokens"] == PROMPT).astype(np.int32)
    row["tokens"][positions] = 0
    return row | {"prompt_positions": positions}
