"""Questions about passages: RACE, and SQuAD as a cloze (for pretraining on several tasks).

Files and patterns: reference-finetune.md, sections 7 and 3.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from glm_jax.tasks.example import Example
from glm_jax.tasks.files import json_lines, whole_json
from glm_jax.tasks.patterns import MASK, Pattern, Shortenable
from glm_jax.tasks.task import Row, Task

NO_ANSWER = "N/A"


def _race_examples(rows: Sequence[Row], split: str) -> list[Example]:
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


def _squad_examples(rows: Sequence[Row], split: str) -> list[Example]:
    questions = [
        (paragraph["context"], question)
        for row in rows
        for article in row["data"]
        for paragraph in article["paragraphs"]
        for question in paragraph["qas"]
    ]
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
        for context, question in questions
    ]


def _squad_pattern(example: Example, pattern: int) -> list[Pattern]:
    parts = (Shortenable(example.text_a), " " + example.second, MASK, ".")
    return [Pattern(parts, answer=" " + example.meta["answer"]["text"])]


TASKS = (
    Task(
        name="race",
        labels=("A", "B", "C", "D"),
        files={
            split: (f"{split}/middle/*.txt", f"{split}/high/*.txt")
            for split in ("train", "dev", "test")
        },
        rows=json_lines,
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
        examples=_squad_examples,
        published_at="https://rajpurkar.github.io/SQuAD-explorer",
        pattern=_squad_pattern,
        num_patterns=1,
    ),
)
