"""Few of many training examples, drawn by a seed."""

from __future__ import annotations

from collections.abc import Sequence

from glm_jax.finetune.order import random_order
from glm_jax.tasks import Example, Task


def draw_subset(
    task: Task | None, examples: Sequence[Example], count: int, seed: int
) -> list[Example]:
    """At most `count` examples, in the order that they had.

    Every label has the same number of examples, but for a remainder, as far as it has so many;
    tasks that score answers have no classes, and draw from all examples alike.

    Args:
      task: of the examples; None where they have no labels.
      examples: to draw from.
      count: at least 1.
      seed: decides which.
    """
    if count >= len(examples):
        return list(examples)
    classes: dict[int, list[int]] = {}
    for index in random_order(len(examples), seed).tolist():
        label = 0 if task is None or task.scores_answers else task.label_index(examples[index])
        classes.setdefault(label, []).append(index)
    # One of each label after the other; labels that have no more are passed over.
    ranked = sorted(
        (rank, position, index)
        for position, of_class in enumerate(classes.values())
        for rank, index in enumerate(of_class)
    )
    return [examples[index] for index in sorted(index for *_, index in ranked[:count])]
