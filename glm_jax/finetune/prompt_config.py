"""The continuous prompts that a finetuning run trains."""

from __future__ import annotations

from dataclasses import dataclass

from glm_jax import validation
from glm_jax.errors import UsageError
from glm_jax.finetune.prompts import INITIAL_PROMPTS, PROMPT_ENCODERS


@dataclass(frozen=True)
class PromptConfig:
    """Continuous prompts.

    Attributes:
      num_tokens: shared by the slots of the pattern; 0 for none.
      prefix: before the pattern.
      encoder: "lstm", "mlp" or "none".
      initial: the trained vectors before the first step: "random", or "words" for mixtures of a
        frequent word's embedding and that of a verbalizer.
    """

    num_tokens: int = 0
    prefix: int = 0
    encoder: str = "lstm"
    initial: str = "random"

    def __post_init__(self) -> None:
        validation.at_least("prompt", self, 0, "num_tokens", "prefix")
        validation.choice("prompt", self, "encoder", PROMPT_ENCODERS)
        validation.choice("prompt", self, "initial", INITIAL_PROMPTS)
        if self.initial == "words" and not self.total:
            raise UsageError("prompt.initial is 'words', but there are no prompts to start")

    @property
    def total(self) -> int:
        """All prompts of an example."""
        return self.num_tokens + self.prefix
