"""WiC: does a word have the same meaning in two sentences.

Fields, patterns and verbalizers: reference-finetune.md, sections 2 and 3.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from glm_jax.tasks.example import Example, Label
from glm_jax.tasks.files import JSON_LINES, SUPERGLUE, json_lines
from glm_jax.tasks.patterns import MASK, SLOT, Part, Pattern, Shortenable
from glm_jax.tasks.task import Row, Segments, Task
from glm_jax.tasks.text import standardize


def _wic_examples(rows: Sequence[Row], split: str) -> list[Example]:
    return [
        Example(
            guid=f"{split}-{row['idx']}",
            text_a=standardize(row["sentence1"]),
            text_b=standardize(row["sentence2"]),
            label=str(row.get("label", False)).lower(),
            idx=row["idx"],
            meta={"word": row["word"]},
        )
        for row in rows
    ]


def _wic_pattern(example: Example, pattern: int) -> list[Pattern]:
    first, second, word = example.text_a, example.second, example.meta["word"]
    if pattern == 0:
        both = Shortenable(f'"{first}" / "{second}"')
        parts: Sequence[Part] = (SLOT, both, SLOT, f' Similar sense of "{word}"?', SLOT, MASK, ".")
    elif pattern == 1:
        texts = (Shortenable(first), SLOT, Shortenable(" " + second), SLOT)
        parts = (*texts, f" Does {word} have the same meaning in both sentences?", SLOT, MASK)
    else:
        senses = (' Sense (1) (a) "', Shortenable(first), '"')
        parts = (SLOT, word, " .", SLOT, *senses, SLOT, " (", MASK, ') "', second, '"')
    return [Pattern(parts)]


def _wic_words(pattern: int) -> Mapping[Label, str]:
    return {"false": "2", "true": "b"} if pattern == 2 else {"false": " No", "true": " Yes"}


def _wic_segments(example: Example) -> Segments:
    return Segments(f"{example.meta['word']}: {example.text_a}", example.second)


TASKS = (
    Task(
        name="wic",
        labels=("false", "true"),
        files=JSON_LINES,
        rows=json_lines,
        examples=_wic_examples,
        published_at=SUPERGLUE,
        texts=("word", "sentence1", "sentence2"),
        submission="WiC.jsonl",
        pattern=_wic_pattern,
        num_patterns=3,
        verbalizers=_wic_words,
        segments=_wic_segments,
        has_slots=True,
    ),
)
