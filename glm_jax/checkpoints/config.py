"""When a run is saved, and what is kept."""

from __future__ import annotations

import dataclasses

from glm_jax import validation


@dataclasses.dataclass(frozen=True)
class CheckpointConfig:
    """When a run is saved: at regular steps, at its end, and when it is asked to stop.

    Attributes:
      every: steps between saves.
      keep: newest checkpoints kept; older ones are deleted.
      keep_every: checkpoints of steps that this divides are kept for good; 0 for none.
    """

    every: int = 1000
    keep: int = 3
    keep_every: int = 0

    def __post_init__(self):
        validation.at_least("checkpoint", self, 1, "every", "keep")
        validation.at_least("checkpoint", self, 0, "keep_every")
