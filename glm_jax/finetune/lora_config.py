"""What low-rank adapters a finetuning run trains in place of the network."""

from __future__ import annotations

from dataclasses import dataclass

from glm_jax import validation
from glm_jax.errors import UsageError

# The linear maps of a block, by their names in the tree of parameters.
TARGETS = ("attention/query_key_value", "attention/output", "mlp/up", "mlp/down")


@dataclass(frozen=True)
class LoraConfig:
    """Low-rank adaptation (Hu et al., 2022): the network is frozen, and adapters are trained.

    Attributes:
      rank: r, the inner size of every adapter; 0 for no adapters.
      alpha: the product of an adapter's two matrices is multiplied by alpha / r.
      dropout: rate on the input of the adapters in training.
      targets: the linear maps that have one, of `TARGETS`.

    Raises:
      UsageError: a field is out of its range.
    """

    rank: int = 0
    alpha: float = 16.0
    dropout: float = 0.0
    targets: tuple[str, ...] = TARGETS

    def __post_init__(self) -> None:
        validation.at_least("lora", self, 0, "rank")
        validation.positive("lora", self, "alpha")
        validation.fraction("lora", self, "dropout", one=False)
        unknown = [target for target in self.targets if target not in TARGETS]
        if unknown or not self.targets or len(set(self.targets)) < len(self.targets):
            raise UsageError(
                f"lora.targets is {self.targets!r}; expected some of {', '.join(TARGETS)}"
            )

    @property
    def scale(self) -> float:
        """What the product of an adapter's matrices is multiplied by; 0 without adapters."""
        return self.alpha / self.rank if self.rank else 0.0
