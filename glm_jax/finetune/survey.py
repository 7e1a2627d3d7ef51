"""What is known of the rows of a split before they are encoded.

Runs start with this, so it builds the questions of all examples, but tokenizes their answers only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Int

from glm_jax.tasks import Example, Task, encode_example
from glm_jax.tasks.example import naming_example
from glm_jax.tasks.patterns import Part, Pattern, Shortenable
from glm_jax.tasks.sequence import Row
from glm_jax.tasks.task import Segments
from glm_jax.tokenizer import Tokenizer


@dataclass(frozen=True)
class Survey:
    """The shapes of the rows of a split, and how long they are compared with each other.

    Attributes:
      sizes: bytes of the text of each row, with its longest answer.
      unshortenable: bytes of it that truncation has to leave; no text has more tokens than bytes.
      num_choices: choices of the row with most of them; 0 where rows have no axis of choices.
      num_segments: the same for the segments of all answers; 0 where these are not split.
      answer_length: tokens of the longest answer or segment; 0 where verbalizers are compared, or
        a head classifies.
    """

    sizes: Int[np.ndarray, "R"]
    unshortenable: Int[np.ndarray, "R"]
    num_choices: int
    num_segments: int
    answer_length: int


def survey_split(
    task: Task,
    examples: Sequence[Example],
    tokenizer: Tokenizer,
    sequence_length: int,
    patterns: Sequence[int],
    options: Mapping[str, Any],
) -> Survey:
    """The rows of a split; the arguments are those of `encode_examples`."""
    if not options.get("cloze", True):
        return survey_classification(task, examples)
    if task.encode is not None:
        return survey_encoded(
            [
                encode_example(task, example, tokenizer, sequence_length=sequence_length)
                for example in examples
            ]
        )
    return survey_questions(
        task,
        examples,
        tokenizer,
        patterns=patterns,
        prompts=options.get("num_prompt_tokens", 0) + options.get("prefix_prompt", 0),
        multi_token=options.get("multi_token", False),
        segment_length=options.get("segment_length", 0),
        alone=task.answer_alone and options.get("negatives") is False,
    )


def survey_classification(task: Task, examples: Sequence[Example]) -> Survey:
    """The rows of a classifier's input, whose ends are dropped where they are too long."""
    inputs = [task.segments(example) for example in examples]
    of_choices = [i if isinstance(i, list) else [i] for i in inputs]
    sizes = np.asarray([max(map(_segments_size, choices)) for choices in of_choices])
    num_choices = max(map(len, of_choices)) if isinstance(inputs[0], list) else 0
    return Survey(sizes, np.zeros_like(sizes), num_choices, 0, 0)


def survey_encoded(rows: Sequence[Row]) -> Survey:
    """Rows of answers that are encoded already."""
    ends = [int(np.flatnonzero(row["loss_mask"].any(axis=0))[-1]) + 1 for row in rows]
    lengths = [end - int(row["prefix_length"].min()) for end, row in zip(ends, rows, strict=True)]
    num_choices = max(len(row["tokens"]) for row in rows)
    sizes = np.asarray(ends)
    return Survey(sizes, np.zeros_like(sizes), num_choices, 0, max(lengths))


def survey_questions(
    task: Task,
    examples: Sequence[Example],
    tokenizer: Tokenizer,
    *,
    patterns: Sequence[int],
    prompts: int,
    multi_token: bool,
    segment_length: int,
    alone: bool,
) -> Survey:
    """The rows of cloze questions.

    Args:
      task: of the examples.
      examples: at least one.
      tokenizer: of the model.
      patterns: ids of those that every example is asked by.
      prompts: number of continuous prompts.
      multi_token: whether the tokens of verbalizers are scored.
      segment_length: tokens of an answer that are scored at a time; 0 for all.
      alone: whether the first answer is scored without others.
    """
    sizes, kept, answers = [], [], []
    for pattern in patterns:
        words = None
        if task.verbalizers is not None:
            by_label = task.verbalizers(pattern)
            words = tuple(by_label[label] for label in task.labels) if multi_token else ()
        for example in examples:
            with naming_example(task.name, example):
                questions = task.questions(example, pattern, with_prompts=prompts > 0)
            texts = _answers(questions[:1] if alone else questions) if words is None else words
            answers.append(texts)
            longest = max(map(_size, texts), default=0)
            total, fixed = max(map(_question_sizes, questions))
            sizes.append(total + longest + prompts)
            kept.append(fixed + longest + prompts)
    return Survey(
        np.asarray(sizes),
        np.asarray(kept),
        0 if alone or not answers[0] else max(map(len, answers)),
        *_answer_sizes(answers, tokenizer, segment_length),
    )


def _answers(questions: Sequence[Pattern]) -> tuple[str, ...]:
    return tuple(question.answer or "" for question in questions)


def _answer_sizes(
    answers: Sequence[tuple[str, ...]], tokenizer: Tokenizer, segment_length: int
) -> tuple[int, int]:
    """Segments of the row with most of them, and tokens of the longest answer or segment."""
    distinct = list(dict.fromkeys(text for of_row in answers for text in of_row))
    if not distinct:
        return 0, 0
    # An end of piece follows each.
    lengths = dict(
        zip(distinct, (len(i) + 1 for i in tokenizer.encode_batch(distinct)), strict=True)
    )
    longest = max(lengths.values())
    if not segment_length:
        return 0, longest
    segments = [sum(-(-lengths[t] // segment_length) for t in of_row) for of_row in answers]
    return max(segments), min(longest, segment_length)


def _segments_size(inputs: Segments) -> int:
    return sum(map(_size, (inputs.first, inputs.second or "", inputs.appended)))


def _question_sizes(question: Pattern) -> tuple[int, int]:
    """Bytes of all parts, and of those that can't be shortened."""
    parts: list[Part] = [*question.first, *question.second]
    total = sum(_size(part.text) for part in parts if isinstance(part, Shortenable))
    # A part that is a mark has one token, and a SentencePiece model adds one to every text.
    fixed = sum(_size(part) if isinstance(part, str) else 1 for part in parts) + len(parts)
    return total + fixed, fixed


def _size(text: str) -> int:
    return len(text.encode(errors="surrogatepass"))
