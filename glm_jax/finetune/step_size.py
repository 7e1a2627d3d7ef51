"""How much a step of finetuning computes, from its batches."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class StepSize:
    """What one batch, or the mean of several, consists of.

    Attributes:
      rows: sequences.
      length: positions of each, padding included.
      logit_share: share of all positions whose logits are computed.
    """

    rows: float
    length: float
    logit_share: float

    @property
    def positions(self) -> float:
        """Of all sequences."""
        return self.rows * self.length


def step_size(batch: Mapping[str, np.ndarray]) -> StepSize:
    """The size of a batch of `share_contexts`."""
    positions, length = batch["tokens"].size, batch["tokens"].shape[-1]
    rows = positions // length
    if "targets" not in batch:
        return StepSize(rows, length, 0.0)
    if batch["targets"].shape == batch["tokens"].shape:  # tokens are learnt, and not labels
        return StepSize(rows, length, 1.0)
    logits = batch["answer_ids"].size if "answer_ids" in batch else rows
    return StepSize(rows, length, logits / positions)


def mean_step_size(batches: Iterable[Mapping[str, np.ndarray]]) -> StepSize:
    """The mean over at least one batch, weighted by positions."""
    sizes = [step_size(batch) for batch in batches]
    rows = sum(size.rows for size in sizes)
    positions = sum(size.positions for size in sizes)
    logits = sum(size.positions * size.logit_share for size in sizes)
    return StepSize(rows / len(sizes), positions / rows, logits / positions)
