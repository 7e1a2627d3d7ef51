"""The prefix that a finetuning run trains in place of the network."""

from __future__ import annotations

from dataclasses import dataclass

from glm_jax import validation


@dataclass(frozen=True)
class PrefixConfig:
    """P-tuning v2 (Liu et al., 2022): the network is frozen, and keys and values before those of
    the sequence are trained in every layer. ChatGLM has it.

    Attributes:
      num_tokens: length of the prefix; 0 for none.
      projection: whether the layers' prefixes are projected from one embedding by two matrices.
      dropout: rate on the prefix in training.

    Raises:
      UsageError: a field is out of its range.
    """

    num_tokens: int = 0
    projection: bool = False
    dropout: float = 0.1

    def __post_init__(self) -> None:
        validation.at_least("prefix", self, 0, "num_tokens")
        validation.boolean("prefix", self, "projection")
        validation.fraction("prefix", self, "dropout", one=False)
