"""Settings of a conversation."""

from __future__ import annotations

import dataclasses

from glm_jax.errors import UsageError
from glm_jax.generate.settings import Sampling


@dataclasses.dataclass(frozen=True)
class ChatSettings:
    """How answers are generated; the defaults are those of the published model's `chat`.

    Attributes:
      max_length: maximum tokens of a prompt and its answer together.
      temperature: 0 takes the most probable token; above 0, tokens are drawn.
      top_p: draws from the most probable tokens that together exceed this probability.
      top_k: draws from the k most probable tokens only; 0 from all.
      seed: of the sampling; None for another one every time.
      special_tokens: whether literal special tokens in messages, such as `[MASK]` and `<eop>`, are
        read as such; False takes all text literally.

    Raises:
      UsageError: a field is out of its range.
    """

    max_length: int = 2048
    temperature: float = 0.95
    top_p: float = 0.7
    top_k: int = 50
    seed: int | None = None
    special_tokens: bool = True

    def __post_init__(self) -> None:
        if self.max_length < 3:
            raise UsageError(f"max_length is {self.max_length}, but must be 3 or more")
        # Also where nothing is drawn and they have no effect.
        Sampling(temperature=self.temperature, seed=self.seed or 0)
        Sampling(temperature=1.0, top_k=self.top_k, top_p=self.top_p)

    def sampling(self, max_new_tokens: int, seed: int) -> Sampling:
        """The settings of one answer; at temperature 0, what limits drawing has no effect."""
        draws = self.temperature != 0
        return Sampling(
            max_blank_length=max_new_tokens,
            temperature=self.temperature,
            top_k=self.top_k if draws else 0,
            top_p=self.top_p if draws else 1.0,
            seed=seed,
        )
