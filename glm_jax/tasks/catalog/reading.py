"""Questions about passages: RACE, and SQuAD and CMRC as a cloze, for pretraining on several tasks.

Files and patterns: reference-finetune.md, sections 7 and 3.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from glm_jax.errors import UsageError
from glm_jax.tasks.example import Example
from glm_jax.tasks.files import CLUE, json_lines, origin_of, whole_json
from glm_jax.tasks.patterns import MASK, Pattern, Shortenable
from glm_jax.tasks.task import Row, Task

NO_ANSWER = "N/A"


def _race_examples(rows: Sequence[Row], split: str) -> list[Example]:
    for number, row in enumerate(rows):
        _check_choices(row, origin_of(row, number))
    return [
        Example(
            guid=f"{split}-p{row['id']}-q{number}",
            text_a=_clean(row["article"]),
            text_b=question,
            label=None if row.get("answers") is None else row["answers"][number],
            idx=[split, row["id"], number],
            meta={"choices": row["options"][number]},
        )
        for row in rows
        for number, question in enumerate(row["questions"])
    ]


def _check_choices(row: Row, origin: str) -> None:
    """Makes sure that a passage has choices for each question, and its answer among them.

    Raises:
      UsageError: it has not.
    """
    count, options, answers = len(row["questions"]), row["options"], row.get("answers")
    if len(options) != count or (answers is not None and len(answers) != count):
        raise UsageError(f"{origin}: expected options and an answer for each of {count} questions")
    for number, choices in enumerate(options):
        if not choices or (answers is not None and answers[number] not in "ABCD"[: len(choices)]):
            raise UsageError(
                f"{origin}: question {number} has {len(choices)} options"
                + ("" if answers is None else f" and the answer {answers[number]!r}")
            )


def _clean(article: str) -> str:
    text = re.sub(r"\s+", " ", article.replace("\n", " "))
    for _ in range(3):
        text = text.replace(" . ", ". ")
    return text


def _race_pattern(example: Example, pattern: int) -> list[Pattern]:
    article, question = Shortenable(example.text_a), " " + example.second
    if "_" in question:
        left, right = question.split("_", 1)
        asked = (Shortenable(left.rstrip()), MASK, Shortenable(right))
        second = asked if pattern == 0 else (" Based on the previous passage,", *asked)
    elif pattern == 0:
        second = (" Question:", Shortenable(question), " Answer:", MASK)
    else:
        second = (" Based on the previous passage,", Shortenable(question), MASK)
    return [Pattern((article,), second, answer=" " + c) for c in example.meta["choices"]]


def _questions(rows: Sequence[Row]) -> list[tuple[str, Row]]:
    """(context, question) of files in SQuAD's format."""
    return [
        (paragraph["context"], question)
        for row in rows
        for article in row["data"]
        for paragraph in article["paragraphs"]
        for question in paragraph["qas"]
    ]


def _squad_examples(rows: Sequence[Row], split: str) -> list[Example]:
    return [
        Example(
            guid=question["id"],
            text_a=context,
            text_b=question["question"],
            label="0",
            meta={
                "answer": question["answers"][0] if question["answers"] else {"text": NO_ANSWER},
                "answers": question["answers"],
            },
        )
        for context, question in _questions(rows)
    ]


def _squad_pattern(example: Example, pattern: int) -> list[Pattern]:
    parts = (Shortenable(example.text_a), " " + example.second, MASK, ".")
    return [Pattern(parts, answer=" " + example.meta["answer"]["text"])]


def _cmrc_examples(rows: Sequence[Row], split: str) -> list[Example]:
    """One example per distinct answer in training, else per question, with its first answer."""
    examples = []
    for context, question in _questions(rows):
        answers = list(dict.fromkeys(answer["text"] for answer in question["answers"]))
        if not answers:
            raise UsageError(f"question {question['id']!r} of cmrc has no answer")
        for number, answer in enumerate(answers if split == "train" else answers[:1]):
            guid = f"{question['id']}-{number}" if number else question["id"]
            meta = {"answer": {"text": answer}, "answers": question["answers"]}
            examples.append(Example(guid, context, question["question"], "0", meta=meta))
    return examples


def _cmrc_pattern(example: Example, pattern: int) -> list[Pattern]:
    """As CMRC's input of generation; the question is shortened after the context."""
    question, context = Shortenable(example.second), Shortenable(example.text_a)
    parts = ("问题：", question, "答案：", MASK, context)
    return [Pattern(parts, answer=example.meta["answer"]["text"])]


_SQUAD_TEXTS = (
    *("data.paragraphs.context", "data.paragraphs.qas.id", "data.paragraphs.qas.question"),
    "data.paragraphs.qas.answers.text",
)

TASKS = (
    Task(
        name="race",
        labels=("A", "B", "C", "D"),
        files={
            split: (f"{split}/middle/*.txt", f"{split}/high/*.txt")
            for split in ("train", "dev", "test")
        },
        rows=json_lines,
        texts=("article", "questions.*", "options.*.*"),
        examples=_race_examples,
        published_at="https://www.cs.cmu.edu/~glai1/data/race",
        pattern=_race_pattern,
        num_patterns=2,
        variable_choices=True,
    ),
    Task(
        name="squad",
        labels=("0",),
        files={"train": ("train-v2.0.json",), "dev": ("dev-v2.0.json",)},
        rows=whole_json,
        texts=_SQUAD_TEXTS,
        examples=_squad_examples,
        published_at="https://rajpurkar.github.io/SQuAD-explorer",
        pattern=_squad_pattern,
        num_patterns=1,
        metrics=(),
    ),
    Task(
        name="cmrc",
        labels=("0",),
        files={split: (f"{split}.json",) for split in ("train", "dev", "test")},
        rows=whole_json,
        texts=_SQUAD_TEXTS,
        examples=_cmrc_examples,
        published_at=CLUE,
        pattern=_cmrc_pattern,
        num_patterns=1,
        metrics=(),
    ),
)
