"""Where batches come from and what shape they have."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from glm_jax import validation
from glm_jax.errors import UsageError

ORDERS = ("epochs", "documents")


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Where batches come from and what shape they have.

    Attributes:
      sequence_length: positions per example, Part A and Part B together.
      batch_size: examples per step over all devices and micro-batches.
      store: folder of the token store.
      stores: instead of `store`, folders of several and the weights in which their examples are
        mixed; each store goes through its own epochs, in training as in held-out evaluation.
      order: how texts are sampled: "epochs", every token once before any comes again,
        or "documents", documents by length, starting at random sentences, as the original does.
      supervised: .jsonl file of supervised cloze examples that are mixed into training; "" for
        none.
      tasks: instead of `supervised`, tasks of `glm_jax.tasks` by name, and the data of each.
      task_weights: the weights in which all these tasks are drawn; where there are none, the
        original's, min(size, 200,000)^0.8.
      supervised_share: part of the training examples that are supervised ones.
      seed: decides the order of texts and every blank.
    """

    sequence_length: int
    batch_size: int
    store: str = ""
    stores: Mapping[str, float] = dataclasses.field(default_factory=dict)
    order: str = "epochs"
    supervised: str = ""
    tasks: Mapping[str, str] = dataclasses.field(default_factory=dict)
    task_weights: Mapping[str, float] = dataclasses.field(default_factory=dict)
    supervised_share: float = 0.0
    seed: int = 0

    def __post_init__(self):
        validation.at_least("data", self, 1, "sequence_length", "batch_size")
        validation.seed("data", self, "seed")
        if bool(self.store) == bool(self.stores):
            raise UsageError(
                f"data.store is {self.store!r} and data.stores is {dict(self.stores)}; "
                "expected exactly one of them"
            )
        for store, weight in self.stores.items():
            if not 0 < weight < float("inf"):
                raise UsageError(f"data.stores gives {store} weight {weight}; expected above 0")
        validation.choice("data", self, "order", ORDERS)
        validation.fraction("data", self, "supervised_share", one=False)
        self._check_supervised()

    def _check_supervised(self) -> None:
        if self.supervised and self.tasks:
            raise UsageError(
                f"data.supervised is {self.supervised!r} and data.tasks is {dict(self.tasks)}; "
                "expected one of them"
            )
        if bool(self.supervised or self.tasks) != (self.supervised_share > 0):
            raise UsageError(
                f"data.supervised is {self.supervised!r}, data.tasks is {dict(self.tasks)} and "
                f"data.supervised_share is {self.supervised_share}; expected examples and a share "
                "above 0, or neither"
            )
        if self.task_weights and set(self.task_weights) != set(self.tasks):
            raise UsageError(
                f"data.task_weights is {dict(self.task_weights)}; expected a weight for each of "
                f"the tasks {', '.join(self.tasks) or '(none)'}, or no weights"
            )
        for task, weight in self.task_weights.items():
            if not 0 < weight < float("inf"):
                raise UsageError(
                    f"data.task_weights gives {task} weight {weight}; expected above 0"
                )

    @property
    def store_weights(self) -> Mapping[str, float]:
        """Every store and its weight, whether one is mixed or several."""
        return self.stores or {self.store: 1.0}

    @property
    def main_store(self) -> str:
        """The only store, or the first of several."""
        return next(iter(self.store_weights))
