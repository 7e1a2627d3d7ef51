"""Does one text follow from another: RTE, AX-b, AX-g and CommitmentBank.

Fields, patterns and verbalizers: reference-finetune.md, sections 2 and 3.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from glm_jax.tasks.example import Example, Label
from glm_jax.tasks.files import JSON_LINES, SUPERGLUE, json_lines
from glm_jax.tasks.patterns import MASK, SLOT, Pattern, Shortenable
from glm_jax.tasks.task import Row, Task
from glm_jax.tasks.text import standardize, strip_punctuation


def row_index(row: Row, number: int) -> int:
    idx = row.get("idx", number)
    if isinstance(idx, str):
        return int(idx) if idx.isdigit() else number
    return idx


def _entailment(premise: str, hypothesis: str):
    def examples(rows: Sequence[Row], split: str) -> list[Example]:
        found = []
        for number, row in enumerate(rows):
            idx = row_index(row, number)
            found.append(
                Example(
                    guid=f"{split}-{idx}",
                    text_a=standardize(row[premise]),
                    text_b=standardize(row[hypothesis]),
                    label=row.get("label"),
                    idx=idx,
                )
            )
        return found

    return examples


def _entailment_pattern(example: Example, pattern: int) -> list[Pattern]:
    premise, hypothesis = example.text_a, strip_punctuation(example.second)
    match pattern:
        case 0:
            return [
                Pattern(
                    (SLOT, '"', Shortenable(hypothesis), '" ?'),
                    (SLOT, MASK, ",", SLOT, ' "', Shortenable(premise), '"'),
                )
            ]
        case 1:
            return [
                Pattern(
                    (SLOT, Shortenable(hypothesis), "?"),
                    (SLOT, MASK, ",", SLOT, Shortenable(" " + premise)),
                )
            ]
        case 2:
            return [
                Pattern(
                    (SLOT, '"', Shortenable(hypothesis), '" ?'),
                    (SLOT, MASK, '. "', SLOT, Shortenable(premise), '"'),
                )
            ]
        case 3:
            return [
                Pattern(
                    (SLOT, Shortenable(hypothesis), "?"),
                    (SLOT, MASK, ".", SLOT, Shortenable(" " + premise)),
                )
            ]
    return [_question(premise, hypothesis, " True or False?")]


def _question(premise: str, hypothesis: str, choice: str) -> Pattern:
    question = (" question:", Shortenable(" " + hypothesis), choice, SLOT, " answer:", MASK)
    return Pattern((SLOT, Shortenable(premise), SLOT, *question))


def _entailment_words(pattern: int) -> Mapping[Label, str]:
    if pattern == 4:
        return {"entailment": " true", "not_entailment": " false"}
    return {"entailment": " Yes", "not_entailment": " No"}


def _cb_pattern(example: Example, pattern: int) -> list[Pattern]:
    if pattern == 4:
        return [_question(example.text_a, example.second, " true, false or neither?")]
    return _entailment_pattern(example, pattern)


def _cb_words(pattern: int) -> Mapping[Label, str]:
    if pattern == 4:
        return {"entailment": " true", "contradiction": " false", "neutral": " neither"}
    return {"entailment": " Yes", "contradiction": " No", "neutral": " Maybe"}


def _task(
    name: str, file: str, premise: str, hypothesis: str, submission: str, *metrics: str
) -> Task:
    return Task(
        name=name,
        labels=("entailment", "not_entailment"),
        files=JSON_LINES if not file else {"train": (file,), "dev": (file,), "test": (file,)},
        rows=json_lines,
        examples=_entailment(premise, hypothesis),
        published_at=SUPERGLUE,
        texts=(premise, hypothesis),
        submission=submission,
        metrics=("accuracy", *metrics),
        pattern=_entailment_pattern,
        num_patterns=5,
        verbalizers=_entailment_words,
        has_slots=True,
    )


TASKS = (
    _task("rte", "", "premise", "hypothesis", "RTE.jsonl"),
    _task("ax-g", "AX-g.jsonl", "premise", "hypothesis", "AX-g.jsonl", "gender-parity"),
    _task("ax-b", "AX-b.jsonl", "sentence1", "sentence2", "AX-b.jsonl", "matthews"),
    Task(
        name="cb",
        labels=("entailment", "contradiction", "neutral"),
        files=JSON_LINES,
        rows=json_lines,
        examples=_entailment("premise", "hypothesis"),
        published_at=SUPERGLUE,
        texts=("premise", "hypothesis"),
        submission="CB.jsonl",
        pattern=_cb_pattern,
        num_patterns=5,
        verbalizers=_cb_words,
        metrics=("accuracy", "f1-macro"),
        has_slots=True,
    ),
)
