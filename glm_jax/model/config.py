"""The dimensions and numerics of one GLM network."""

from __future__ import annotations

import dataclasses

from glm_jax.errors import UsageError
from glm_jax.model.attention.choose import ATTENTION_KINDS
from glm_jax.model.remat import REMAT_POLICIES

COMPUTE_DTYPES = ("float32", "bfloat16")


@dataclasses.dataclass(frozen=True)
class GLMConfig:
    """Everything that shapes the network; parameters are always stored in float32.

    The original's `attention_scale` has no field: it divides queries and keys to keep fp16 scores
    from overflowing and multiplies them back, which changes nothing in float32 or bfloat16.

    Attributes:
      vocab_size: rows of the word embedding as stored, V. For a new model this is the tokenizer's
        `padded_vocab_size`.
      num_layers: N.
      hidden_size: D; a multiple of `num_attention_heads`. The MLP is 4 D wide.
      num_attention_heads: H.
      max_sequence_length: the largest position; both position tables have one row more. With
        one-dimensional positions it is the number of positions, and the table has as many rows.
      block_position_encoding: whether a second table gives the place inside the blank; False for
        one-dimensional positions.
      embedding_dropout: rate after the sum of the three embeddings.
      hidden_dropout: rate after the attention output and after the MLP output.
      attention_dropout: rate on the attention probabilities.
      layernorm_epsilon: added to the variance in every LayerNorm.
      compute_dtype: dtype of activations and matrix products, "float32" or "bfloat16". LayerNorm
        statistics, softmax and logits are float32 either way.
      attention: how attention is computed: "xla", anywhere; "by_head", one head after another, for
        CPUs; "flash", kernels of our own for TPUs; "cudnn", on GPUs. Only "xla" knows attention
        dropout.
      remat: what the backward pass keeps and what it computes again, see `remat_policy`: "none",
        "minimal", "offload" or "full".

    Raises:
      UsageError: a field is out of its range.
    """

    vocab_size: int
    num_layers: int
    hidden_size: int
    num_attention_heads: int
    max_sequence_length: int
    block_position_encoding: bool = True
    embedding_dropout: float = 0.1
    hidden_dropout: float = 0.1
    attention_dropout: float = 0.1
    layernorm_epsilon: float = 1e-5
    compute_dtype: str = "float32"
    attention: str = "xla"
    remat: str = "none"

    def __post_init__(self) -> None:
        for name in (
            "vocab_size",
            "num_layers",
            "hidden_size",
            "num_attention_heads",
            "max_sequence_length",
        ):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise UsageError(f"model.{name} is {value!r}, but must be a positive whole number")
        if self.hidden_size % self.num_attention_heads:
            raise UsageError(
                f"model.hidden_size is {self.hidden_size}, which model.num_attention_heads = "
                f"{self.num_attention_heads} does not divide"
            )
        if not isinstance(self.block_position_encoding, bool):
            raise UsageError(
                f"model.block_position_encoding is {self.block_position_encoding!r}, "
                "but must be True or False"
            )
        for name in ("embedding_dropout", "hidden_dropout", "attention_dropout"):
            value = getattr(self, name)
            if not _is_number(value) or not 0.0 <= value < 1.0:
                raise UsageError(f"model.{name} is {value!r}, but must be in [0, 1)")
        if not _is_number(self.layernorm_epsilon) or self.layernorm_epsilon <= 0.0:
            raise UsageError(
                f"model.layernorm_epsilon is {self.layernorm_epsilon!r}, but must be above 0"
            )
        for name, choices in (
            ("compute_dtype", COMPUTE_DTYPES),
            ("attention", ATTENTION_KINDS),
            ("remat", REMAT_POLICIES),
        ):
            if getattr(self, name) not in choices:
                raise UsageError(
                    f"model.{name} is {getattr(self, name)!r}, but must be one of "
                    f"{', '.join(choices)}"
                )

    @property
    def head_size(self) -> int:
        """Width of one attention head, K."""
        return self.hidden_size // self.num_attention_heads

    @property
    def num_positions(self) -> int:
        """Rows of the position table."""
        return self.max_sequence_length + (1 if self.block_position_encoding else 0)

    @property
    def mlp_size(self) -> int:
        """Inner width of the MLP, F."""
        return 4 * self.hidden_size


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
