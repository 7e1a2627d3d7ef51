"""COPA: which of two sentences is the cause or the effect of a third.

Fields, patterns and verbalizers: reference-finetune.md, sections 2 and 3.
"""

from __future__ import annotations

from collections.abc import Sequence

from glm_jax.tasks.example import Example
from glm_jax.tasks.files import JSON_LINES, SUPERGLUE, json_lines
from glm_jax.tasks.patterns import MASK, SLOT, Pattern, Shortenable
from glm_jax.tasks.task import Row, Segments, Task
from glm_jax.tasks.text import lower_first, standardize, strip_punctuation


def _copa_examples(rows: Sequence[Row], split: str) -> list[Example]:
    examples = [
        Example(
            guid=f"{split}-{row['idx']}",
            text_a=row["premise"],
            label=row.get("label"),
            idx=row["idx"],
            meta={name: row[name] for name in ("choice1", "choice2", "question")},
        )
        for row in rows
    ]
    if split in ("train", "unlabeled"):
        examples += [_mirrored(example) for example in examples]
    return examples


def _mirrored(example: Example) -> Example:
    """The same question with its choices in the other order."""
    meta = example.meta
    swapped = {"choice1": meta["choice2"], "choice2": meta["choice1"]}
    label = None if example.label is None else 1 - int(example.label)
    return Example(
        guid=f"{example.guid}m", text_a=example.text_a, label=label, meta={**meta, **swapped}
    )


def _copa_pattern(example: Example, pattern: int) -> list[Pattern]:
    cause = example.meta["question"] == "cause"
    choices = [
        strip_punctuation(lower_first(example.meta[name])) for name in ("choice1", "choice2")
    ]
    premise = strip_punctuation(example.text_a)
    if pattern >= 2:
        joiner = " because" if cause else " so"
        start = ('"', choices[0], '" or "', choices[1], '"?', Shortenable(premise), MASK)
        return [Pattern((*start, " " + choice), answer=joiner) for choice in choices]
    joiner = " because" if cause else ", so"
    if pattern == 0:
        start = (SLOT, '"', choices[0], '" or "', choices[1], '"?', SLOT)
    else:
        start = (SLOT, choices[0], " or", " " + choices[1], "?", SLOT)
    parts = (*start, Shortenable(" " + premise), joiner, SLOT, MASK, ".")
    return [Pattern(parts, answer=" " + choice) for choice in choices]


def _prompt_pattern(example: Example) -> list[Pattern]:
    """Pattern 2 of COPA under continuous prompts, which is another than without them."""
    first, second = (
        strip_punctuation(lower_first(example.meta[name])) for name in ("choice1", "choice2")
    )
    joiner = " because" if example.meta["question"] == "cause" else ", so"
    premise = Shortenable(strip_punctuation(" " + example.text_a))
    start = (SLOT, '"', first, '" or "', second, '"', SLOT)
    parts = (*start, premise, joiner, MASK, ".", SLOT)
    return [Pattern(parts, answer=" " + choice) for choice in (first, second)]


def _copa_segments(example: Example) -> list[Segments]:
    joiner = " because" if example.meta["question"] == "cause" else " so"
    premise = standardize(example.text_a) + joiner
    return [Segments(premise, standardize(example.meta[name])) for name in ("choice1", "choice2")]


TASKS = (
    Task(
        name="copa",
        labels=(0, 1),
        files=JSON_LINES,
        rows=json_lines,
        examples=_copa_examples,
        published_at=SUPERGLUE,
        texts=("premise", "choice1", "choice2", "question"),
        submission="COPA.jsonl",
        pattern=_copa_pattern,
        num_patterns=4,
        prompt_patterns={2: _prompt_pattern},
        segments=_copa_segments,
        ensemble=2,
        has_slots=True,
    ),
)
