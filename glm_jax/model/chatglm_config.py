"""The dimensions and numerics of ChatGLM-6B's network."""

from __future__ import annotations

import dataclasses

from glm_jax.errors import UsageError
from glm_jax.model.config import GLMConfig
from glm_jax.model.rotary import ROTARY_PRECISIONS
from glm_jax.validation import at_least, boolean, choice, fraction

# Rows of the word embedding of the first release, whose text ids start 20,000 later.
OLD_VOCAB_SIZE = 150528
OLD_FIRST_TEXT_ID = 20000


@dataclasses.dataclass(frozen=True)
class ChatGLMConfig(GLMConfig):
    """What shapes a ChatGLM network besides the fields of `GLMConfig`, which mean the same here.

    `max_sequence_length` is the window that the network was trained with; rotary positions have no
    table, and nothing in the network ends there. `block_position_encoding` says whether positions
    have a second row, that inside the blank (False for one-dimensional positions).

    Attributes:
      inner_size: width of the MLP, F; 0 for 4 D.
      rotary_precision: how the angles of positions are rounded, see `rotary.rotation_of`.
      num_prefix_tokens: trained keys and values before those of the sequence, in every layer
        (P-tuning v2: Liu et al., 2022).
      prefix_projection: whether they are projected from one embedding by two matrices.
      prefix_dropout: rate on them in training.

    Raises:
      UsageError: a field is out of its range.
    """

    embedding_dropout: float = 0.0
    hidden_dropout: float = 0.0
    attention_dropout: float = 0.0
    inner_size: int = 0
    rotary_precision: str = "float16_frequencies"
    num_prefix_tokens: int = 0
    prefix_projection: bool = False
    prefix_dropout: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least("model", self, 0, "inner_size", "num_prefix_tokens")
        choice("model", self, "rotary_precision", ROTARY_PRECISIONS)
        boolean("model", self, "prefix_projection")
        fraction("model", self, "prefix_dropout", one=False)
        parts = 2 * (1 + self.block_position_encoding)
        if self.head_size % parts:
            raise UsageError(
                f"model.hidden_size / model.num_attention_heads is {self.head_size}; expected a "
                f"multiple of {parts} for rotary positions"
            )

    @property
    def num_positions(self) -> int:
        """Positions of the window."""
        return self.max_sequence_length

    @property
    def position_rows(self) -> int:
        """There is no position table."""
        return 0

    @property
    def mlp_size(self) -> int:
        """Inner width of the MLP, F."""
        return self.inner_size or 4 * self.hidden_size

    @property
    def fallback_token(self) -> int:
        """The token that replaces invalid scores: the first one of text."""
        return 5 + (OLD_FIRST_TEXT_ID if self.vocab_size == OLD_VOCAB_SIZE else 0)
