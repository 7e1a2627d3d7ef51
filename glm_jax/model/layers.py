"""The transformer block of GLM: LayerNorm, attention, LayerNorm, MLP."""

from __future__ import annotations

import math
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from glm_jax.model.attention import attend
from glm_jax.model.config import GLMConfig

INITIAL_STANDARD_DEVIATION = 0.02


def layer_norm(config: GLMConfig, name: str | None = None) -> nn.LayerNorm:
    """LayerNorm over the hidden axis with float32 statistics (two passes, not E[x^2] - E[x]^2)."""
    return nn.LayerNorm(
        epsilon=config.layernorm_epsilon,
        dtype=jnp.dtype(config.compute_dtype),
        use_fast_variance=False,
        scale_init=nn.with_logical_partitioning(nn.initializers.ones, ("hidden",)),
        bias_init=nn.with_logical_partitioning(nn.initializers.zeros, ("hidden",)),
        name=name,
    )


def dense(
    config: GLMConfig,
    features: int | tuple[int, ...],
    axes: tuple[str, ...],
    standard_deviation: float,
    name: str,
) -> nn.DenseGeneral:
    """Linear map of the last axis to `features`; `axes` are the logical names of its kernel."""
    return nn.DenseGeneral(
        features,
        dtype=jnp.dtype(config.compute_dtype),
        kernel_init=nn.with_logical_partitioning(nn.initializers.normal(standard_deviation), axes),
        bias_init=nn.with_logical_partitioning(nn.initializers.zeros, axes[1:]),
        name=name,
    )


def residual_standard_deviation(config: GLMConfig) -> float:
    """Initial deviation of the two matrices of a block that write into the residual stream."""
    return INITIAL_STANDARD_DEVIATION / math.sqrt(2.0 * config.num_layers)


class SelfAttention(nn.Module):
    """Multi-head self-attention with a fused [D, 3, D] kernel for query, key and value."""

    config: GLMConfig

    @nn.compact
    def __call__(
        self,
        hidden: Float[Array, "B L D"],
        prefix_length: Int[Array, "B"],
        deterministic: bool,
    ) -> Float[Array, "B L D"]:
        config = self.config
        batch, length, hidden_size = hidden.shape
        # Heads are split off here and not in the kernel: a minor axis of 64 would be padded to 128.
        projected = dense(
            config,
            (3, hidden_size),
            ("hidden_in", "query_key_value", "heads_out"),
            INITIAL_STANDARD_DEVIATION,
            "query_key_value",
        )(hidden)  # [B, L, D] -> [B, L, 3, D]
        heads = (batch, length, config.num_attention_heads, config.head_size)
        query, key, value = (projected[:, :, third].reshape(heads) for third in range(3))
        drop = config.attention_dropout > 0.0 and not deterministic
        context = attend(
            query,
            key,
            value,
            prefix_length,
            dropout_rate=config.attention_dropout,
            dropout_rng=self.make_rng("dropout") if drop else None,
        ).reshape(hidden.shape)  # [B, L, H, K] -> [B, L, D]
        return dense(
            config,
            hidden_size,
            ("heads_in", "hidden"),
            residual_standard_deviation(config),
            "output",
        )(context)


class MLP(nn.Module):
    """Two linear maps around a tanh-approximated GELU."""

    config: GLMConfig

    @nn.compact
    def __call__(self, hidden: Float[Array, "B L D"]) -> Float[Array, "B L D"]:
        config = self.config
        inner = dense(
            config, config.mlp_size, ("hidden_in", "mlp_out"), INITIAL_STANDARD_DEVIATION, "up"
        )(hidden)  # [B, L, D] -> [B, L, F]
        # Only its input is kept for the backward pass: the steps of the tanh form are as large as
        # `inner` each, and cost less to compute again than to store and read.
        inner = jax.checkpoint(partial(nn.gelu, approximate=True), prevent_cse=False)(inner)
        return dense(
            config,
            config.hidden_size,
            ("mlp_in", "hidden"),
            residual_standard_deviation(config),
            "down",
        )(inner)  # [B, L, F] -> [B, L, D]


class Block(nn.Module):
    """One pre-LayerNorm transformer block."""

    config: GLMConfig

    @nn.compact
    def __call__(
        self,
        hidden: Float[Array, "B L D"],
        prefix_length: Int[Array, "B"],
        deterministic: bool = True,
    ) -> Float[Array, "B L D"]:
        """Adds attention and then the MLP, each of a normalised input, to the residual stream.

        Source: paper, section 2.2 (pre-LayerNorm order as in Megatron-LM); original code.
        """
        config = self.config
        dropout = nn.Dropout(config.hidden_dropout, deterministic=deterministic)
        attended = SelfAttention(config, name="attention")(
            layer_norm(config, "attention_layernorm")(hidden), prefix_length, deterministic
        )
        hidden = hidden + dropout(attended)
        transformed = MLP(config, name="mlp")(layer_norm(config, "mlp_layernorm")(hidden))
        return hidden + dropout(transformed)
