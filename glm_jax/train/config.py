"""What a pretraining run reads and how long it runs."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from glm_jax.errors import UsageError

ACCUMULATIONS = ("global_mean", "clipped_means")
ORDERS = ("epochs", "documents")


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Where batches come from and what shape they have.

    Attributes:
      sequence_length: positions per example, Part A and Part B together.
      batch_size: examples per step over all devices and micro-batches.
      store: folder of the token store.
      stores: in place of `store`, folders of several and the weights in which their examples are
        mixed; each store goes through epochs of its own, in training as in held-out evaluation.
      order: which texts examples are cut from: "epochs", every token once before any comes again,
        or "documents", documents by length, from random sentences on, as the original does.
      supervised: .jsonl file of supervised cloze examples that are mixed into training; "" for
        none.
      supervised_share: part of the training examples that are supervised ones.
      seed: decides the order of texts and every blank.
    """

    sequence_length: int
    batch_size: int
    store: str = ""
    stores: Mapping[str, float] = dataclasses.field(default_factory=dict)
    order: str = "epochs"
    supervised: str = ""
    supervised_share: float = 0.0
    seed: int = 0

    def __post_init__(self):
        for name in ("sequence_length", "batch_size"):
            if getattr(self, name) < 1:
                raise UsageError(f"data.{name} is {getattr(self, name)}; expected at least 1")
        if bool(self.store) == bool(self.stores):
            raise UsageError(
                f"data.store is {self.store!r} and data.stores is {dict(self.stores)}; "
                "expected exactly one of them"
            )
        for store, weight in self.stores.items():
            if not 0 < weight < float("inf"):
                raise UsageError(f"data.stores gives {store} weight {weight}; expected above 0")
        if self.order not in ORDERS:
            raise UsageError(f"data.order is {self.order!r}; expected one of {', '.join(ORDERS)}")
        if not 0 <= self.supervised_share < 1:
            raise UsageError(
                f"data.supervised_share is {self.supervised_share}; expected at least 0, below 1"
            )
        if bool(self.supervised) != (self.supervised_share > 0):
            raise UsageError(
                f"data.supervised is {self.supervised!r} and data.supervised_share is "
                f"{self.supervised_share}; expected a file and a share above 0, or neither"
            )

    @property
    def store_weights(self) -> Mapping[str, float]:
        """Every store and its weight, whether one is mixed or several."""
        return self.stores or {self.store: 1.0}

    @property
    def main_store(self) -> str:
        """The only store, or the first of several."""
        return next(iter(self.store_weights))


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
