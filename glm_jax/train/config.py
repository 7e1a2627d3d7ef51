"""What a pretraining run reads and how long it runs."""

from __future__ import annotations

import dataclasses

from glm_jax.checkpoints.checkpoints import CheckpointConfig
from glm_jax.data.blanks.config import BlankConfig
from glm_jax.data.config import DataConfig
from glm_jax.errors import UsageError
from glm_jax.model.config import GLMConfig
from glm_jax.parallel.layout import LayoutConfig
from glm_jax.parallel.mesh import MeshConfig
from glm_jax.train.evaluate import EvaluationConfig
from glm_jax.train.optimizer import OptimizerConfig

ACCUMULATIONS = ("global_mean", "clipped_means")


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """The run itself.

    Attributes:
      run_folder: where configuration, metrics and checkpoints go.
      num_steps: updates in all; a finished run is continued by raising it.
      seed: decides initial parameters and dropout.
      initial_weights: a checkpoint of any kind that `glm_jax.load` opens, whose weights a new run
        begins from; "" begins from random ones.
      accumulation_steps: micro-batches that a step's batch is split into.
      accumulation: how micro-batches become one update: "global_mean", every target counting alike
        and the gradient clipped once, or "clipped_means", a mean of their means that is clipped
        after each, as the original does.
      target_fraction: share of a batch's positions that the loss has room for; logits are computed
        for no more. 1 has room for all. Targets beyond it are left out of the loss and counted in
        the metric target_overflow.
      loss_chunks: parts of these positions whose logits are computed one after another, which
        takes less memory and a little more time.
      log_every: steps between lines of metrics.
      max_skipped_steps: updates that may be left out because loss or gradients were not finite;
        one more stops the run.
    """

    run_folder: str
    num_steps: int
    seed: int = 0
    initial_weights: str = ""
    accumulation_steps: int = 1
    accumulation: str = "global_mean"
    target_fraction: float = 1.0
    loss_chunks: int = 1
    log_every: int = 10
    max_skipped_steps: int = 0

    def __post_init__(self):
        for name, least in (
            ("num_steps", 1),
            ("accumulation_steps", 1),
            ("loss_chunks", 1),
            ("log_every", 1),
            ("max_skipped_steps", 0),
        ):
            if getattr(self, name) < least:
                raise UsageError(
                    f"train.{name} is {getattr(self, name)}; expected at least {least}"
                )
        if not 0 < self.target_fraction <= 1:
            raise UsageError(
                f"train.target_fraction is {self.target_fraction}; expected above 0, at most 1"
            )
        if self.accumulation not in ACCUMULATIONS:
            raise UsageError(
                f"train.accumulation is {self.accumulation!r}; expected one of "
                f"{', '.join(ACCUMULATIONS)}"
            )


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """Everything that describes a pretraining run; each field is a section of the gin files."""

    model: GLMConfig
    mesh: MeshConfig
    layout: LayoutConfig
    data: DataConfig
    blanks: BlankConfig
    optimizer: OptimizerConfig
    train: TrainConfig
    evaluation: EvaluationConfig
    checkpoint: CheckpointConfig

    def __post_init__(self):
        if self.data.sequence_length > self.model.max_sequence_length:
            raise UsageError(
                f"data.sequence_length is {self.data.sequence_length}, but the model's position "
                f"table ends at model.max_sequence_length = {self.model.max_sequence_length}"
            )
        beyond = self.data.sequence_length >= self.model.num_positions
        if self.blanks.sentinels and beyond:
            raise UsageError(
                f"blanks.sentinels puts blanks at position {self.data.sequence_length}, behind the "
                f"text, but the model has only {self.model.num_positions} positions"
            )
        if self.data.batch_size % self.train.accumulation_steps:
            raise UsageError(
                f"train.accumulation_steps is {self.train.accumulation_steps}, which does not "
                f"divide data.batch_size = {self.data.batch_size}"
            )
