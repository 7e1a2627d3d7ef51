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
