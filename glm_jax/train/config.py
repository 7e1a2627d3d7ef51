"""What a pretraining run reads and how long it runs."""

from __future__ import annotations

import dataclasses

from glm_jax.errors import UsageError

ACCUMULATIONS = ("global_mean", "clipped_means")


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Where batches come from and what shape they have.

    Attributes:
      store: folder of the token store.
      sequence_length: positions per example, Part A and Part B together.
      batch_size: examples per step over all devices and micro-batches.
      seed: decides the order of windows and every blank.
    """

    store: str
    sequence_length: int
    batch_size: int
    seed: int = 0

    def __post_init__(self):
        for name in ("sequence_length", "batch_size"):
            if getattr(self, name) < 1:
                raise UsageError(f"data.{name} is {getattr(self, name)}; expected at least 1")


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """The run itself.

    Attributes:
      run_folder: where configuration, metrics and checkpoints go.
      num_steps: updates in all; a finished run is continued by raising it.
      seed: decides initial parameters and dropout.
      accumulation_steps: micro-batches that a step's batch is split into.
      accumulation: how micro-batches become one update: "global_mean", every target counting alike
        and the gradient clipped once, or "clipped_means", a mean of their means that is clipped
        after each, as the original does.
      log_every: steps between lines of metrics.
      max_skipped_steps: updates that may be left out because loss or gradients were not finite;
        one more stops the run.
    """

    run_folder: str
    num_steps: int
    seed: int = 0
    accumulation_steps: int = 1
    accumulation: str = "global_mean"
    log_every: int = 10
    max_skipped_steps: int = 0

    def __post_init__(self):
        for name, least in (
            ("num_steps", 1),
            ("accumulation_steps", 1),
            ("log_every", 1),
            ("max_skipped_steps", 0),
        ):
            if getattr(self, name) < least:
                raise UsageError(
                    f"train.{name} is {getattr(self, name)}; expected at least {least}"
                )
        if self.accumulation not in ACCUMULATIONS:
            raise UsageError(
                f"train.accumulation is {self.accumulation!r}; expected one of "
                f"{', '.join(ACCUMULATIONS)}"
            )
