"""BoolQ: yes or no questions about a passage.

Fields, patterns and verbalizers: reference-finetune.md, sections 2 and 3.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from glm_jax.tasks.example import Example, Label
from glm_jax.tasks.files import JSON_LINES, SUPERGLUE, json_lines
from glm_jax.tasks.patterns import MASK, SLOT, Part, Pattern, Shortenable
from glm_jax.tasks.task import Row, Task
from glm_jax.tasks.text import standardize


def _boolq_examples(rows: Sequence[Row], split: str) -> list[Example]:
    return [
        Example(
            guid=f"{split}-{row['idx']}",
            text_a=standardize(row["passage"]),
            text_b=standardize(row["question"]),
            label=None if row.get("label") is None else str(row["label"]).lower(),
            idx=row["idx"],
        )
        for row in rows
    ]


def _boolq_pattern(example: Example, pattern: int) -> list[Pattern]:
    question = Shortenable(" " + example.second)
    if pattern < 2:
        passage = Shortenable(example.text_a)
        parts: Sequence[Part] = (
            *(SLOT, passage, SLOT, " Question:", question, "? Answer:", SLOT, MASK, "."),
        )
    elif pattern < 4:
        passage = Shortenable(example.text_a)
        based = " Based on the previous passage,"
        parts = (SLOT, passage, based, SLOT, question, "?", SLOT, MASK, ".")
    else:
        passage = Shortenable(" " + example.text_a)
        based = "Based on the following passage"
        parts = (based, SLOT, question, "?", SLOT, MASK, ".", SLOT, passage)
    return [Pattern(parts)]


def _boolq_words(pattern: int) -> Mapping[Label, str]:
    if pattern % 2:
        return {"false": " false", "true": " true"}
    return {"false": " No", "true": " Yes"}


TASKS = (
    Task(
        name="boolq",
        labels=("false", "true"),
        files=JSON_LINES,
        rows=json_lines,
        examples=_boolq_examples,
        published_at=SUPERGLUE,
        texts=("passage", "question"),
        submission="BoolQ.jsonl",
        pattern=_boolq_pattern,
        num_patterns=6,
        verbalizers=_boolq_words,
        has_slots=True,
    ),
)
