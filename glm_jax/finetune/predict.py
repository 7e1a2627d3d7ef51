"""Scores of all examples of a split -> predictions and metrics."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float, PyTree

from glm_jax.finetune.batches import evaluation_batches
from glm_jax.finetune.encoded import EncodedExamples
from glm_jax.finetune.ensemble import mean_over_patterns
from glm_jax.finetune.shared_contexts import share_contexts
from glm_jax.parallel.batches import process_rows, to_devices
from glm_jax.tasks import Example, Task, metrics


@dataclass(frozen=True)
class Predictions:
    """What a model says of a split.

    Attributes:
      labels: index of the predicted label, or of the chosen answer, of every example.
      metrics: by name, the first one choosing checkpoints; empty where examples have no labels.
      files: what people and benchmarks read, by name.
      confusion: labels and counts, where examples have one label of a few.
    """

    labels: Sequence[int]
    metrics: Mapping[str, float]
    files: Mapping[str, bytes] = field(default_factory=dict)
    confusion: Mapping[str, Any] | None = None


def predict(
    task: Task,
    examples: Sequence[Example],
    encoded: EncodedExamples,
    scores: Callable[[PyTree, Mapping], jax.Array],
    params: PyTree,
    mesh: Mesh,
    batch_size: int,
) -> Predictions:
    """Predictions of every example, and their metrics; all processes take part.

    Args:
      task: of the examples.
      examples: of a split.
      encoded: the same examples as rows.
      scores: the compiled scores of a batch.
      params: of the model.
      mesh: its devices.
      batch_size: examples at a time.
    """
    found = score_all(encoded, scores, params, mesh, batch_size)
    chosen = np.argmax(mean_over_patterns(found, len(examples)), axis=-1)
    if task.label_of_choice is not None and encoded.num_choices:
        labels = [task.label_of_choice(int(choice)) for choice in chosen]
    else:
        labels = [int(choice) for choice in chosen]
    labelled = all(example.label is not None for example in examples)
    return Predictions(labels, metrics(task, labels, examples) if labelled else {})


def score_all(
    encoded: EncodedExamples,
    scores: Callable[[PyTree, Mapping], jax.Array],
    params: PyTree,
    mesh: Mesh,
    batch_size: int,
) -> Float[np.ndarray, "N C"]:
    """The scores of the choices of every example; a text is read once for all its answers."""
    found: list[np.ndarray] = [np.zeros(0)] * len(encoded)
    rows = process_rows(mesh, batch_size)
    for indices, batch in evaluation_batches(encoded, batch_size):
        local = {name: values[rows] for name, values in share_contexts(batch).items()}
        (on_devices,) = to_devices([local], mesh, batch_size)
        table = np.asarray(jax.device_get(scores(params, on_devices)))
        for index, row in zip(indices, table, strict=False):
            found[index] = row
    return np.stack(found)
