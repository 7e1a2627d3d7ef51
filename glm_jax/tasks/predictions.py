"""Predictions as the benchmarks take them: one JSON object per line.

Source: reference-finetune.md, section 6.
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
    """The lines of a submission.

    Args:
      task: of the examples.
      predictions: index of the chosen label or answer of each example.
      examples: in the order of the predictions.
    """
    if task.name == "multirc":
        objects = _by_passage(predictions, examples)
    else:
        objects = [
            {"idx": number if example.idx == -1 else example.idx, "label": label}
            for number, (example, label) in enumerate(
                zip(examples, _labels(task, predictions, examples), strict=True)
            )
        ]
        if task.sorted_predictions:
            objects.sort(key=lambda item: item["idx"])
    return [json.dumps(item, ensure_ascii=False) for item in objects]


def _labels(task: Task, predictions: Sequence[int], examples: Sequence[Example]) -> list[str]:
    """The names of labels, or the texts of chosen entities."""
    if task.name == "record":
        return [
            example.meta["candidates"][prediction]
            for prediction, example in zip(predictions, examples, strict=True)
        ]
    return [str(task.labels[prediction]) for prediction in predictions]


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
