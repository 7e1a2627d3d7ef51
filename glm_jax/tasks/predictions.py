"""Predictions as the benchmarks take them.

Source: reference-finetune.md, section 6, and the benchmarks' own pages.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from glm_jax.tasks.example import Example
from glm_jax.tasks.task import Task


def prediction_lines(
    task: Task, predictions: Sequence[int], examples: Sequence[Example]
) -> list[str]:
    """One JSON object per prediction, or per passage of MultiRC: `idx` and `label`.

    Where the task's files have no index, it is the number of the row, from 0.

    Args:
      task: of the examples.
      predictions: index of the chosen label or answer of each example.
      examples: in the order of the predictions.
    """
    return [json.dumps(item, ensure_ascii=False) for item in _objects(task, predictions, examples)]


def submission(
    task: Task, predictions: Sequence[int], examples: Sequence[Example]
) -> tuple[str, str] | None:
    """Name and content of the file that the task's benchmark takes; None where it takes none.

    SuperGLUE takes lines of JSON with `idx` and `label`, GLUE a table with tabs and the header
    `index	prediction`, CLUE lines of JSON with `id` and `label`.
    """
    if not task.submission:
        return None
    objects = _objects(task, predictions, examples)
    if task.submission.endswith(".tsv"):
        lines = ["index\tprediction", *(f"{item['idx']}\t{item['label']}" for item in objects)]
    elif task.submission.endswith(".json"):
        renamed = [{"id": item["idx"], "label": item["label"]} for item in objects]
        lines = [json.dumps(item, ensure_ascii=False) for item in renamed]
    else:
        lines = [json.dumps(item, ensure_ascii=False) for item in objects]
    return task.submission, "\n".join(lines) + "\n"


def _objects(
    task: Task, predictions: Sequence[int], examples: Sequence[Example]
) -> list[Mapping[str, Any]]:
    if task.name == "multirc":
        return _by_passage(predictions, examples)
    objects: list[Mapping[str, Any]] = [
        {
            "idx": number if example.idx == -1 else example.idx,
            "label": _label(task, prediction, example),
        }
        for number, (prediction, example) in enumerate(zip(predictions, examples, strict=True))
    ]
    return sorted(objects, key=lambda item: item["idx"]) if task.sorted_predictions else objects


def _label(task: Task, prediction: int, example: Example) -> Any:
    if task.prediction is not None:
        return task.prediction(example, prediction)
    return str(task.labels[prediction])


def _by_passage(predictions: Sequence[int], examples: Sequence[Example]) -> list[Mapping[str, Any]]:
    """MultiRC's answers below their questions below their passages."""
    passages: dict[int, dict[int, list[Mapping[str, int]]]] = {}
    for prediction, example in zip(predictions, examples, strict=True):
        meta = example.meta
        questions = passages.setdefault(meta["passage_idx"], {})
        answer = {"idx": meta["answer_idx"], "label": int(prediction)}
        questions.setdefault(meta["question_idx"], []).append(answer)
    return [
        {
            "idx": passage,
            "passage": {
                "questions": [
                    {"idx": question, "answers": answers} for question, answers in questions.items()
                ]
            },
        }
        for passage, questions in passages.items()
    ]
