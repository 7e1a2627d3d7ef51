"""ReCoRD: which entity of a passage fills the gap of a query.

Fields and pattern: reference-finetune.md, sections 2 and 3.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from glm_jax.errors import UsageError
from glm_jax.tasks.example import Example
from glm_jax.tasks.files import JSON_LINES, SUPERGLUE, json_lines
from glm_jax.tasks.patterns import MASK, Pattern, Shortenable
from glm_jax.tasks.task import Row, Segments, Task
from glm_jax.tasks.text import standardize

PLACEHOLDER = "@placeholder"
# Of the entities that are not answers, a training example has at most so many.
MAX_WRONG_CANDIDATES = 9
_SHUFFLE_SEED = 42


def _examples(rows: Sequence[Row], split: str) -> list[Example]:
    for_training = split in ("train", "unlabeled")
    return training_examples(rows, split) if for_training else question_examples(rows, split)


def training_examples(rows: Sequence[Row], split: str) -> list[Example]:
    """One example per distinct answer, which is the first of its candidates."""
    shuffle = random.Random(_SHUFFLE_SEED).shuffle
    examples = []
    for row in rows:
        text, entities = _passage(row)
        for question in row["qas"]:
            answers = _answers(question)
            wrong = [entity for entity in entities if entity not in answers]
            for number, answer in enumerate(answers):
                chosen = list(wrong)
                if len(chosen) > MAX_WRONG_CANDIDATES:
                    shuffle(chosen)
                    chosen = chosen[:MAX_WRONG_CANDIDATES]
                candidates = [answer, *chosen]
                guid = f"{split}-p{row['idx']}-q{question['idx']}-a{number}"
                meta = _meta(row, question, candidates, [answer])
                idx = [row["idx"], question["idx"], number]
                query = standardize(question["query"])
                examples.append(Example(guid, text, query, "0", idx, len(candidates), meta))
    return examples


def question_examples(rows: Sequence[Row], split: str) -> list[Example]:
    """One example per question, with all entities as candidates and a label without meaning."""
    examples = []
    for row in rows:
        text, entities = _passage(row)
        for question in row["qas"]:
            meta = _meta(row, question, entities, _answers(question))
            guid = f"{split}-p{row['idx']}-q{question['idx']}"
            if not entities:
                raise UsageError(f"example {guid} of record has no entities to choose from")
            query, idx = standardize(question["query"]), question["idx"]
            examples.append(Example(guid, text, query, "1", idx, len(entities), meta))
    return examples


def _passage(row: Row) -> tuple[str, list[str]]:
    """The passage's text, its highlights marked, and its distinct entities in order."""
    text = standardize(row["passage"]["text"])
    spans = row["passage"]["entities"]
    entities = sorted({text[span["start"] : span["end"] + 1] for span in spans})
    return text.replace("@highlight\n", "- "), entities


def _answers(question: Row) -> list[str]:
    """Distinct answers, in the file's order."""
    answers = question.get("answers") or ()
    return list(dict.fromkeys(standardize(answer["text"]) for answer in answers))


def _meta(row: Row, question: Row, candidates: list[str], answers: list[str]) -> Row:
    return {
        "passage_idx": row["idx"],
        "question_idx": question["idx"],
        "candidates": candidates,
        "answers": answers,
    }


def _pattern(example: Example, pattern: int) -> list[Pattern]:
    left, found, right = example.second.partition(PLACEHOLDER)
    if not found or PLACEHOLDER in right:
        raise UsageError(f"expected one {PLACEHOLDER} in the query {example.second!r}")
    parts = (Shortenable(example.text_a), " " + left.rstrip(), MASK, right)
    return [Pattern(parts, answer=" " + entity) for entity in example.meta["candidates"]]


def _segments(example: Example) -> list[Segments]:
    return [
        Segments(example.text_a, example.second, appended=candidate)
        for candidate in example.meta["candidates"]
    ]


TASKS = (
    Task(
        name="record",
        labels=("0", "1"),
        files=JSON_LINES,
        rows=json_lines,
        examples=_examples,
        other_examples={"loss": training_examples},
        published_at=SUPERGLUE,
        texts=("passage.text", "qas.query"),
        submission="ReCoRD.jsonl",
        pattern=_pattern,
        num_patterns=1,
        segments=_segments,
        metrics=("EM", "F1"),
        variable_choices=True,
        prediction=lambda example, choice: example.meta["candidates"][choice],
    ),
)
