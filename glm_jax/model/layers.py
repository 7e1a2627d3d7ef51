"""The transformer block of GLM: LayerNorm, attention, LayerNorm, MLP."""

from __future__ import annotations

import math
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from glm_jax.model.attention import attend
from glm_jax.model.cache import KeyValueCache, LayerMemory
from glm_jax.model.config import GLMConfig

INITIAL_STANDARD_DEVIATION = 0.02


def layer_norm(epsilon: float, dtype: str, name: str | None = None) -> nn.LayerNorm:
    """LayerNorm over the hidden axis with float32 statistics (two passes, not E[x^2] - E[x]^2)."""
    return nn.LayerNorm(
        epsilon=epsilon,
        dtype=jnp.dtype(dtype),
        use_fast_variance=False,
        scale_init=nn.with_logical_partitioning(nn.initializers.ones, ("hidden",)),
        bias_init=nn.with_logical_partitioning(nn.initializers.zeros, ("hidden",)),
        name=name,
    )


def dense(
    features: int | tuple[int, ...],
    axes: tuple[str, ...],
    standard_deviation: float,
    dtype: str,
    name: str,
) -> nn.DenseGeneral:
    """Linear map of the last axis to `features`; `axes` are the logical names of its kernel."""
    return nn.DenseGeneral(
        features,
        dtype=jnp.dtype(dtype),
        kernel_init=nn.with_logical_partitioning(nn.initializers.normal(standard_deviation), axes),
        bias_init=nn.with_logical_partitioning(nn.initializers.zeros, axes[1:]),
        name=name,
    )


def residual_standard_deviation(num_layers: int) -> float:
    """Initial deviation of the two matrices of a block that write into the residual stream."""
    return INITIAL_STANDARD_DEVIATION / math.sqrt(2.0 * num_layers)


def split_heads(
    projected: Float[Array, "B L P D"], num_attention_heads: int
) -> list[Float[Array, "B L H K"]]:
    """Each of the P parts of a projection, cut into heads."""
    batch, length, parts, hidden_size = projected.shape
    heads = (batch, length, num_attention_heads, hidden_size // num_attention_heads)
    return [projected[:, :, part].reshape(heads) for part in range(parts)]


class SelfAttention(nn.Module):
    """Multi-head self-attention with a fused [D, 3, D] kernel for query, key and value."""

    config: GLMConfig

    @nn.compact
    def __call__(
        self,
        hidden: Float[Array, "B L D"],
        prefix_length: Int[Array, "#B"] | None,
        deterministic: bool,
        attention_mask: Bool[Array, "#B 1 L M"] | Int[Array, "#B 1 L M"] | None,
        memory: LayerMemory | None,
    ) -> tuple[Float[Array, "B L D"], KeyValueCache | None]:
        config = self.config
        hidden_size = hidden.shape[2]
        # Heads are split off here and not in the kernel: a minor axis of 64 would be padded to 128.
        projected = dense(
            (3, hidden_size),
            ("hidden_in", "query_key_value", "heads_out"),
            INITIAL_STANDARD_DEVIATION,
            config.compute_dtype,
            "query_key_value",
        )(hidden)  # [B, L, D] -> [B, L, 3, D]
        query, key, value = split_heads(projected, config.num_attention_heads)
        cache = None
        if memory is not None:
            cache, key, value = memory.write(key, value)  # [B, L, H, K] -> [B, M, H, K]
        drop = config.attention_dropout > 0.0 and not deterministic
        context = attend(
            query,
            key,
            value,
            prefix_length,
            attention_mask=attention_mask,
            dropout_rate=config.attention_dropout,
            dropout_rng=self.make_rng("dropout") if drop else None,
        ).reshape(hidden.shape)  # [B, L, H, K] -> [B, L, D]
        attended = dense(
            hidden_size,
            ("heads_in", "hidden"),
            residual_standard_deviation(config.num_layers),
            config.compute_dtype,
            "output",
        )(context)
        return attended, cache


class MLP(nn.Module):
    """Two linear maps around a tanh-approximated GELU, the inner one four times as wide.

    Attributes:
      output_deviation: initial standard deviation of the second matrix.
      dtype: of activations and products.
    """

    output_deviation: float
    dtype: str

    @nn.compact
    def __call__(self, hidden: Float[Array, "B L D"]) -> Float[Array, "B L D"]:
        width = hidden.shape[-1]
        inner = dense(
            4 * width, ("hidden_in", "mlp_out"), INITIAL_STANDARD_DEVIATION, self.dtype, "up"
        )(hidden)  # [B, L, D] -> [B, L, F]
        # Only its input is kept for the backward pass: the steps of the tanh form are as large as
        # `inner` each, and cost less to compute again than to store and read.
        inner = jax.checkpoint(partial(nn.gelu, approximate=True), prevent_cse=False)(inner)
        return dense(width, ("mlp_in", "hidden"), self.output_deviation, self.dtype, "down")(
            inner
        )  # [B, L, F] -> [B, L, D]


class Block(nn.Module):
    """One pre-LayerNorm transformer block."""

    config: GLMConfig

    @nn.compact
    def __call__(
        self,
        hidden: Float[Array, "B L D"],
        prefix_length: Int[Array, "#B"] | None,
        deterministic: bool = True,
        attention_mask: Bool[Array, "#B 1 L M"] | Int[Array, "#B 1 L M"] | None = None,
        memory: LayerMemory | None = None,
    ) -> tuple[Float[Array, "B L D"], KeyValueCache | None]:
        """Adds attention and then the MLP, each of a normalised input, to the residual stream.

        Returns:
          The stream, and the cache with the new keys and values where a memory is given. The stream
          is also kept as "output" in the collection "intermediates", if that is asked for.

        Source: paper, section 2.2 (pre-LayerNorm order as in Megatron-LM); original code.
        """
        config = self.config
        norm = partial(layer_norm, config.layernorm_epsilon, config.compute_dtype)
        dropout = nn.Dropout(config.hidden_dropout, deterministic=deterministic)
        attended, cache = SelfAttention(config, name="attention")(
            norm("attention_layernorm")(hidden),
            prefix_length,
            deterministic,
            attention_mask,
            memory,
        )
        hidden = hidden + dropout(attended)
        deviation = residual_standard_deviation(config.num_layers)
        mlp = MLP(deviation, config.compute_dtype, name="mlp")
        hidden = hidden + dropout(mlp(norm("mlp_layernorm")(hidden)))
        self.sow("intermediates", "output", hidden)
        return hidden, cache
