"""GLUE's tasks: MNLI, SST-2, CoLA, MRPC, QQP, QNLI.

Files, patterns and verbalizers: reference-finetune.md, sections 7 and 3.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from glm_jax.tasks.example import Example, Label
from glm_jax.tasks.files import (
    GLUE,
    TSV,
    Fields,
    origin_of,
    tab_separated,
    tab_separated_columns,
)
from glm_jax.tasks.patterns import MASK, Pattern, Shortenable
from glm_jax.tasks.task import Row, Task
from glm_jax.tasks.text import lower_first, standardize, strip_punctuation


def _fields(first: str, second: str | None, label: str, guid: str = "{split}"):
    """Examples from rows with these fields; `guid` has the split's name in the guids."""

    def examples(rows: Sequence[Row], split: str) -> list[Example]:
        prefix = split if split == "train" else guid.format(split=split)
        return [
            Example(
                guid=f"{prefix}-{number}",
                text_a=standardize(row[first]),
                text_b=None if second is None else standardize(row[second]),
                label=row.get(label),
            )
            for number, row in enumerate(rows)
        ]

    return examples


def _words(*choices: Mapping[str, str], each: int = 1) -> Callable[[int], Mapping[Label, str]]:
    """Verbalizers: those of the first `each` patterns, of the next `each`, ..."""

    def verbalizers(pattern: int) -> Mapping[Label, str]:
        return {**choices[min(pattern // each, len(choices) - 1)]}

    return verbalizers


def _mnli_pattern(example: Example, pattern: int) -> list[Pattern]:
    first, second = Shortenable(strip_punctuation(example.text_a)), example.second
    if pattern % 2 == 0:
        return [Pattern(('"', first, '" ?'), (MASK, ', "', second, '"'))]
    return [Pattern((first, "?"), (MASK, ",", second))]


def _mnli(name: str, kind: str, submission: str) -> Task:
    return Task(
        name=name,
        labels=("contradiction", "entailment", "neutral"),
        files={
            "train": ("train.tsv",),
            "dev": (f"dev_{kind}.tsv",),
            "test": (f"test_{kind}.tsv",),
        },
        rows=tab_separated,
        examples=_fields("sentence1", "sentence2", "gold_label", "{split}_" + kind),
        published_at=GLUE,
        texts=("sentence1", "sentence2"),
        submission=submission,
        pattern=_mnli_pattern,
        num_patterns=4,
        verbalizers=_words(
            {"contradiction": " Wrong", "entailment": " Right", "neutral": " Maybe"},
            {"contradiction": " No", "entailment": " Yes", "neutral": " Maybe"},
            each=2,
        ),
    )


def _sst2_pattern(example: Example, pattern: int) -> list[Pattern]:
    return [Pattern((Shortenable(example.text_a), " It was", MASK, "."))]


def _cola_rows(path) -> list[Row]:
    """The test file has a header and the others have none."""
    if path.name.startswith("test"):
        return tab_separated(path)
    return [
        Fields({"label": row["1"], "sentence": row["3"]}, origin_of(row, number))
        for number, row in enumerate(tab_separated_columns(path))
    ]


def _cola_pattern(example: Example, pattern: int) -> list[Pattern]:
    return [Pattern(('"', Shortenable(example.text_a), '"', " This is", MASK, "."))]


def _mrpc_pattern(example: Example, pattern: int) -> list[Pattern]:
    second = lower_first(example.second)
    if pattern == 0:
        return [Pattern((Shortenable(example.text_a),), (MASK, ", ", Shortenable(second)))]
    asked = Shortenable(strip_punctuation(second))
    return [Pattern((Shortenable(example.text_a),), (" Does it mean that", asked, "?", MASK))]


def _qqp_pattern(example: Example, pattern: int) -> list[Pattern]:
    second = Shortenable(lower_first(example.second))
    if pattern == 0:
        return [Pattern((Shortenable(example.text_a),), (" Do you mean ", second, MASK, "."))]
    return [Pattern((Shortenable(example.text_a),), (MASK, ", ", second))]


def _qnli_pattern(example: Example, pattern: int) -> list[Pattern]:
    question = Shortenable(" " + strip_punctuation(example.text_a))
    if pattern == 0:
        sentence = Shortenable(example.second)
        asked = (" Question:", question, "? Do you know the answer?", MASK, ".")
        return [Pattern((sentence, *asked))]
    if pattern == 1:
        sentence = Shortenable(example.second)
        asked = " Based on the previous passage, do you know the answer"
        return [Pattern((sentence, asked, question, "?", MASK, "."))]
    sentence = Shortenable(" " + example.second)
    asked = "Based on the following passage, do you know the answer"
    return [Pattern((asked, question, "?", MASK, ".", sentence))]


_NO_YES = {"0": " No", "1": " Yes"}


def _binary(name: str, first: str, second: str | None, label: str, **more) -> Task:
    texts = (first,) if second is None else (first, second)
    settings = {"labels": ("0", "1"), "files": TSV, "rows": tab_separated, "texts": texts} | more
    examples = _fields(first, second, label)
    return Task(name=name, examples=examples, published_at=GLUE, **settings)


TASKS = (
    _mnli("mnli", "matched", "MNLI-m.tsv"),
    _mnli("mnli-mm", "mismatched", "MNLI-mm.tsv"),
    _binary(
        *("sst2", "sentence", None, "label"),
        submission="SST-2.tsv",
        pattern=_sst2_pattern,
        num_patterns=2,
        verbalizers=_words({"0": " terrible", "1": " great"}, {"0": " bad", "1": " good"}),
    ),
    _binary(
        *("cola", "sentence", None, "label"),
        rows=_cola_rows,
        submission="CoLA.tsv",
        metrics=("accuracy", "matthews"),
        pattern=_cola_pattern,
        num_patterns=1,
        verbalizers=_words({"0": " incorrect", "1": " correct"}),
    ),
    _binary(
        *("mrpc", "#1 String", "#2 String", "Quality"),
        submission="MRPC.tsv",
        metrics=("accuracy", "f1"),
        pattern=_mrpc_pattern,
        num_patterns=2,
        verbalizers=_words(_NO_YES),
    ),
    _binary(
        *("qqp", "question1", "question2", "is_duplicate"),
        submission="QQP.tsv",
        metrics=("accuracy", "f1"),
        pattern=_qqp_pattern,
        num_patterns=2,
        verbalizers=_words(_NO_YES),
    ),
    _binary(
        *("qnli", "question", "sentence", "label"),
        labels=("entailment", "not_entailment"),
        submission="QNLI.tsv",
        pattern=_qnli_pattern,
        num_patterns=3,
        verbalizers=_words({"entailment": " Yes", "not_entailment": " No"}),
    ),
)
