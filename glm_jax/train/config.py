"""What a pretraining run reads and how long it runs."""

from __future__ import annotations

import dataclasses

from glm_jax import validation
from glm_jax.checkpoints.config import CheckpointConfig
from glm_jax.data.blanks.config import BlankConfig
from glm_jax.data.config import DataConfig
from glm_jax.errors import UsageError
from glm_jax.model.config import GLMConfig
from glm_jax.parallel.layout import LayoutConfig
from glm_jax.parallel.mesh import MeshConfig
from glm_jax.train.evaluate import EvaluationConfig
from glm_jax.train.optimizer import OptimizerConfig

ACCUMULATIONS = ("global_mean", "clipped_means")
MAX_SEED = 2**63 - 1  # of JAX's random numbers


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """The run itself.

    Attributes:
      run_folder: where configuration, metrics and checkpoints go.
      num_steps: updates in all; a finished run is continued by raising it.
      seed: decides initial parameters and dropout.
      initial_weights: a checkpoint of any kind that `glm_jax.load` opens, whose weights a new run
        starts from; "" for random ones.
      accumulation_steps: micro-batches that a step's batch is split into.
      accumulation: how micro-batches become one update: "global_mean", the mean over all targets,
        its gradient clipped once, or "clipped_means", a mean of their means that is clipped
        after each, as the original does.
      target_fraction: the loss capacity: the share of a batch's positions that logits are computed
        for. Targets that exceed it are missing in the loss and counted in the metric
        target_overflow.
      loss_chunks: parts of these positions whose logits are computed one after another, which
        takes less memory and a little more time.
      log_every: steps between lines of metrics.
      max_skipped_steps: updates that may be skipped because loss or gradients were not finite; one
        more stops the run.
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
        names = ("num_steps", "accumulation_steps", "loss_chunks", "log_every")
        validation.at_least("train", self, 1, *names)
        validation.at_least("train", self, 0, "max_skipped_steps")
        validation.seed("train", self, "seed")
        validation.fraction("train", self, "target_fraction", zero=False)
        validation.choice("train", self, "accumulation", ACCUMULATIONS)
        if not -MAX_SEED - 1 <= self.seed <= MAX_SEED:
            raise UsageError(f"train.seed is {self.seed}; expected an integer of 64 bits")


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
        validation.at_least("optimizer", self.optimizer, 1, "decay_steps")
        if self.data.sequence_length > self.model.max_sequence_length:
            raise UsageError(
                f"data.sequence_length is {self.data.sequence_length}, but the model's position "
                f"table ends at model.max_sequence_length = {self.model.max_sequence_length}"
            )
        beyond = self.data.sequence_length >= self.model.num_positions
        if self.blanks.sentinels and beyond:
            raise UsageError(
                f"blanks.sentinels puts blanks at position {self.data.sequence_length}, after the "
                f"text, but the model has only {self.model.num_positions} positions"
            )
        if self.data.batch_size % self.train.accumulation_steps:
            raise UsageError(
                f"train.accumulation_steps is {self.train.accumulation_steps}, which does not "
                f"divide data.batch_size = {self.data.batch_size}"
            )

    @property
    def evaluation_blanks(self) -> BlankConfig:
        """How blanks are sampled in evaluations."""
        return self.evaluation.blanks(self.blanks)
