"""Predictions on a split as people and benchmarks read them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from glm_jax.tasks import Example, Task
from glm_jax.tasks.predictions import prediction_lines, submission


def prediction_name(split: str) -> str:
    """Name of the file of the predictions on a split."""
    return "predictions.jsonl" if split == "dev" else f"predictions_{split}.jsonl"


def prediction_files(
    task: Task, split: str, labels: Sequence[int], examples: Sequence[Example]
) -> Mapping[str, bytes]:
    """Files with the predictions in the benchmark's format, by name."""
    lines = prediction_lines(task, labels, examples)
    files = {prediction_name(split): ("\n".join(lines) + "\n").encode()}
    submitted = submission(task, labels, examples) if split == "test" else None
    return files | ({submitted[0]: submitted[1].encode()} if submitted is not None else {})


def confusion_of(
    task: Task, labels: Sequence[int], examples: Sequence[Example]
) -> Mapping[str, Any] | None:
    """How many examples of each label (rows) have each prediction (columns)."""
    size = len(task.labels)
    if task.variable_choices or any(example.label is None for example in examples):
        return None
    counts = np.zeros((size, size), int)
    np.add.at(counts, ([task.label_index(example) for example in examples], list(labels)), 1)
    return {"labels": [str(label) for label in task.labels], "counts": counts.tolist()}
