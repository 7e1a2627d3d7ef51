"""The dimensions and numerics of one GLM network."""

from __future__ import annotations

import dataclasses

import jax

from glm_jax.errors import UsageError
from glm_jax.model.attention.choose import ATTENTION_KINDS
from glm_jax.model.remat import REMAT_POLICIES
from glm_jax.validation import at_least, boolean, choice, fraction, positive

COMPUTE_DTYPES = ("float32", "bfloat16")
QUANTIZATIONS = ("none", "int8", "int4")


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
      block_position_encoding: whether a second table embeds the position inside the blank; False
        for one-dimensional positions.
      embedding_dropout: rate after the sum of the three embeddings.
      hidden_dropout: rate after the attention output and after the MLP output.
      attention_dropout: rate on the attention probabilities.
      layernorm_epsilon: added to the variance in every LayerNorm.
      compute_dtype: dtype of activations and matrix products, "float32" or "bfloat16"; LayerNorm
        statistics, softmax and logits are float32 either way. "float64" is for comparisons, under
        `jax.enable_x64`, with parameters and everything else in float64.
      attention: how attention is computed: "xla", on any platform; "by_head", a few heads after
        another, for CPUs; "flash", Pallas kernels for TPUs; "cudnn", on GPUs, without dropout of
        probabilities.
      remat: what the backward pass keeps and what it computes again, one of REMAT_POLICIES, see
        `remat_policy`.
      scan_layers: whether the program has one layer in a loop, which compiles fast, or all layers
        one after another, which runs faster where memory limits it: nothing is copied into and out
        of arrays of all layers, and transfers of one layer overlap with work on another.
      quantization: how the matrices of the blocks are stored: "none", as numbers of the dtype of
        the parameters; "int8" or "int4", as integers with one scale per column of the result.

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
    scan_layers: bool = True
    quantization: str = "none"

    def __post_init__(self) -> None:
        at_least("model", self, 1, "vocab_size", "num_layers", "hidden_size", "num_attention_heads")
        at_least("model", self, 1, "max_sequence_length")
        check_heads(self.hidden_size, self.num_attention_heads)
        boolean("model", self, "block_position_encoding", "scan_layers")
        rates = ("embedding_dropout", "hidden_dropout", "attention_dropout")
        fraction("model", self, *rates, one=False)
        positive("model", self, "layernorm_epsilon")
        comparable = ("float64",) if jax.config.jax_enable_x64 else ()
        choice("model", self, "compute_dtype", (*COMPUTE_DTYPES, *comparable))
        choice("model", self, "attention", ATTENTION_KINDS)
        choice("model", self, "remat", REMAT_POLICIES)
        choice("model", self, "quantization", QUANTIZATIONS)

    @property
    def head_size(self) -> int:
        """Width of one attention head, K."""
        return self.hidden_size // self.num_attention_heads

    @property
    def num_positions(self) -> int:
        """Positions that a sequence may have."""
        return self.max_sequence_length + (1 if self.block_position_encoding else 0)

    @property
    def position_rows(self) -> int:
        """Rows of each position table."""
        return self.num_positions

    @property
    def mlp_size(self) -> int:
        """Inner width of the MLP, F."""
        return 4 * self.hidden_size


def check_heads(hidden_size: int, num_attention_heads: int) -> None:
    """Checks that the heads divide the hidden axis.

    Raises:
      UsageError: they do not.
    """
    if hidden_size % num_attention_heads:
        raise UsageError(
            f"model.hidden_size is {hidden_size}; expected a multiple of "
            f"model.num_attention_heads = {num_attention_heads}"
        )
