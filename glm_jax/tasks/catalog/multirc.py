"""MultiRC: which answers to a question about a passage are right.

Fields, patterns and verbalizers: reference-finetune.md, sections 2 and 3.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from glm_jax.tasks.example import Example, Label
from glm_jax.tasks.files import JSON_LINES, SUPERGLUE, json_lines
from glm_jax.tasks.patterns import MASK, SLOT, Part, Pattern, Shortenable
from glm_jax.tasks.task import Row, Segments, Task
from glm_jax.tasks.text import standardize, strip_punctuation


def _multirc_examples(rows: Sequence[Row], split: str) -> list[Example]:
    return [
        Example(
            guid=f"{split}-p{row['idx']}-q{question['idx']}-a{answer['idx']}",
            text_a=standardize(row["passage"]["text"]),
            text_b=standardize(question["question"]),
            label=answer.get("label"),
            idx=[row["idx"], question["idx"], answer["idx"]],
            meta={
                "passage_idx": row["idx"],
                "question_idx": question["idx"],
                "answer_idx": answer["idx"],
                "answer": standardize(answer["text"]),
            },
        )
        for row in rows
        for question in row["passage"]["questions"]
        for answer in question["answers"]
    ]


def _multirc_pattern(example: Example, pattern: int) -> list[Pattern]:
    passage = Shortenable(strip_punctuation(example.text_a.rstrip()))
    question = " " + strip_punctuation(example.second.rstrip())
    answer = example.meta["answer"]
    if pattern == 3:
        return [Pattern((SLOT, passage, SLOT, question, "- [", MASK, "]", SLOT, answer))]
    if pattern == 0:
        asked: Sequence[Part] = (" Question:", question + "?", SLOT, " Is it", " " + answer, "?")
    elif pattern == 1:
        correct = ' Is the correct answer "'
        asked = (" Question:", question, "?", SLOT, correct, answer, '"?')
    elif pattern == 2:
        asked = (question, "?", SLOT, ' Is "', answer, '" a correct answer?')
        based = ". Based on the previous passage,"
        return [Pattern((passage, based, SLOT, *asked, SLOT, MASK, "."))]
    else:
        asked = (" Question:", question, "?", SLOT, " " + answer, "?")
    return [Pattern((passage, ".", SLOT, *asked, SLOT, MASK, "."))]


def _multirc_words(pattern: int) -> Mapping[Label, str]:
    return {0: " False", 1: " True"} if pattern == 3 else {0: " No", 1: " Yes"}


def _multirc_segments(example: Example) -> Segments:
    return Segments(example.text_a, f"{example.text_b} answer: {example.meta['answer']}")


TASKS = (
    Task(
        name="multirc",
        labels=(0, 1),
        files=JSON_LINES,
        rows=json_lines,
        examples=_multirc_examples,
        published_at=SUPERGLUE,
        texts=(
            *("passage.text", "passage.questions.question"),
            "passage.questions.answers.text",
        ),
        submission="MultiRC.jsonl",
        pattern=_multirc_pattern,
        num_patterns=5,
        verbalizers=_multirc_words,
        segments=_multirc_segments,
        metrics=("f1a", "em", "acc", "em-by-passage"),
        has_slots=True,
    ),
)
