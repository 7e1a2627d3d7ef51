"""The transformer block of GLM: LayerNorm, attention, LayerNorm, MLP."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Bool, Float, Int

from glm_jax.model.attention.choose import attention_function
from glm_jax.model.attention.xla import attend
from glm_jax.model.config import GLMConfig
from glm_jax.model.dropout import Dropout, drop_hidden
from glm_jax.model.kv_cache import KVCache, LayerCache
from glm_jax.model.remat import ATTENTION_OUTPUT, MLP_UP, QUERY_KEY_VALUE
from glm_jax.parallel.collectives import (
    copy_to_tensor_parallel,
    gather_context,
    local_offset,
    local_size,
    reduce_from_tensor_parallel,
)
from glm_jax.parallel.layout import LENGTH_AXES, ROW_PARALLEL_AXES

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


class Linear(nn.Module):
    """Linear map of the last axis with a bias.

    Where tensor parallelism divides the columns of the kernel (column-parallel), the result is this
    device's columns. Where it divides the rows (row-parallel), `inputs` are this device's rows, and
    the products are summed over devices before the bias is added.

    Attributes:
      features: last axes of the result, over all tensor-parallel devices.
      axes: the logical names of the kernel's axes.
      standard_deviation: of the initial kernel.
      dtype: of inputs, products and result.
    """

    features: tuple[int, ...]
    axes: tuple[str, ...]
    standard_deviation: float
    dtype: str

    @nn.compact
    def __call__(
        self, inputs: Float[Array, "... I"], dropout: Dropout | None = None
    ) -> Float[Array, "... O"]:
        """The map of `inputs`; `dropout` is for kinds of maps that drop something themselves."""
        outputs = self.product(inputs, dropout)
        if self.is_row_parallel:
            outputs = reduce_from_tensor_parallel(outputs)
        return outputs + self.bias_parameter()

    def product(
        self, inputs: Float[Array, "... I"], dropout: Dropout | None
    ) -> Float[Array, "... O"]:
        """The map before the bias, of this device's rows and columns."""
        kernel = self.kernel_parameter(self.axes, (inputs.shape[-1], *self.local_features))
        contracted = (((inputs.ndim - 1,), (0,)), ((), ()))
        return jax.lax.dot_general(inputs.astype(kernel.dtype), kernel, contracted)

    @property
    def is_row_parallel(self) -> bool:
        """Whether tensor parallelism divides the rows of the kernel."""
        return self.axes[0] in ROW_PARALLEL_AXES

    @property
    def local_features(self) -> tuple[int, ...]:
        """Last axes of the result on this device."""
        return tuple(map(local_size, self.axes[1:], self.features))

    def kernel_parameter(
        self, axes: tuple[str, ...], shape: tuple[int, ...]
    ) -> Float[Array, "..."]:
        """The kernel, with these axes in this order, in the compute dtype."""
        normal = nn.with_logical_partitioning(nn.initializers.normal(self.standard_deviation), axes)
        return self.param("kernel", normal, shape).astype(jnp.dtype(self.dtype))

    def bias_parameter(self) -> Float[Array, "..."]:
        """The bias in the compute dtype."""
        zeros = nn.with_logical_partitioning(nn.initializers.zeros, self.axes[1:])
        return self.param("bias", zeros, self.local_features).astype(jnp.dtype(self.dtype))


LinearKind = Callable[..., Linear]
"""`Linear` or a class derived from it, with settings of its own bound to it."""


def residual_standard_deviation(num_layers: int) -> float:
    """Initial deviation of the two matrices of a block that write into the residual stream."""
    return INITIAL_STANDARD_DEVIATION / math.sqrt(2.0 * num_layers)


def split_heads(
    projected: Float[Array, "B L P D"], head_size: int
) -> list[Float[Array, "B L H K"]]:
    """Each of the P projections, split into heads."""
    batch, length, num_parts, _ = projected.shape
    # Saved separately, they are not sliced from the projection again in the backward pass; saved
    # before they are split into heads, a minor axis of 64 is not padded to 128.
    saved = [checkpoint_name(projected[:, :, i], QUERY_KEY_VALUE) for i in range(num_parts)]
    return [array.reshape(batch, length, -1, head_size) for array in saved]


class SelfAttention(nn.Module):
    """Multi-head self-attention with a fused [D, 3, D] kernel for query, key and value.

    Attributes:
      config: dimensions and numerics.
      linear: the kind of linear maps.
    """

    config: GLMConfig
    linear: LinearKind = Linear

    @nn.compact
    def __call__(
        self,
        hidden: Float[Array, "B L D"],
        prefix_length: Int[Array, "#B"] | None,
        dropout: Dropout | None,
        attention_mask: Bool[Array, "#B 1 Q M"] | Int[Array, "#B 1 Q M"] | None,
        kv_cache: KVCache | None,
    ) -> tuple[Float[Array, "B L D"], LayerCache | None]:
        config, width = self.config, hidden.shape[2]
        # Heads are split off here and not in the kernel: a minor axis of 64 would be padded to 128.
        projected = self.linear(
            (3, width),
            ("hidden_in", "query_key_value", "heads_out"),
            INITIAL_STANDARD_DEVIATION,
            config.compute_dtype,
            name="query_key_value",
        )(hidden, dropout)  # [B, L, D] -> [B, L, 3, D]
        query, key, value = split_heads(projected, config.head_size)
        if kv_cache is not None:
            context, cache = kv_cache.attend(query, key, value)
        else:
            context, cache = (
                self._attend(query, key, value, prefix_length, dropout, attention_mask),
                None,
            )
        attended = self.linear(
            (width,),
            ("heads_in", "hidden"),
            residual_standard_deviation(config.num_layers),
            config.compute_dtype,
            name="output",
        )(context.reshape(*hidden.shape[:2], -1), dropout)  # [B, L, H, K] -> [B, L, D]
        return checkpoint_name(attended, ATTENTION_OUTPUT), cache

    def _attend(
        self,
        query: Float[Array, "B L H K"],
        key: Float[Array, "B M H K"],
        value: Float[Array, "B M H K"],
        prefix_length: Int[Array, "#B"] | None,
        dropout: Dropout | None,
        attention_mask: Bool[Array, "#B 1 Q M"] | Int[Array, "#B 1 Q M"] | None,
    ) -> Float[Array, "B L H K"]:
        """The kind of attention that the configuration, or a mask, or dropout asks for."""
        config, length = self.config, query.shape[1]
        if attention_mask is not None and attention_mask.shape[2] < length:
            # The mask is that of the last positions; those before see the prefix.
            first = length - attention_mask.shape[2]
            text_query, text_key, text_value = (array[:, :first] for array in (query, key, value))
            last_dropout = dropout and dropout.from_position(first)
            parts = (
                self._attend(text_query, text_key, text_value, prefix_length, dropout, None),
                self._attend(query[:, first:], key, value, None, last_dropout, attention_mask),
            )
            return jnp.concatenate(parts, axis=1)
        start = local_offset(LENGTH_AXES, length)
        key, value = gather_context(key), gather_context(value)
        drop = None
        if dropout and config.attention_dropout:
            batch, _, num_heads, _ = query.shape
            drop = dropout.probabilities(config.attention_dropout, batch, num_heads, length)
        if attention_mask is not None:
            return attend(query, key, value, None, attention_mask=attention_mask, dropout=drop)
        assert prefix_length is not None
        attention = attention_function(config.attention)
        return attention(query, key, value, prefix_length, start, dropout=drop)


class MLP(nn.Module):
    """Two linear maps around a tanh-approximated GELU, the inner one four times as wide.

    Attributes:
      output_deviation: initial standard deviation of the second matrix.
      dtype: of activations and products.
      linear: the kind of linear maps.
    """

    output_deviation: float
    dtype: str
    linear: LinearKind = Linear

    @nn.compact
    def __call__(
        self, hidden: Float[Array, "B L D"], dropout: Dropout | None = None
    ) -> Float[Array, "B L D"]:
        width = hidden.shape[-1]
        inner = self.linear(
            (4 * width,),
            ("hidden_in", "mlp_out"),
            INITIAL_STANDARD_DEVIATION,
            self.dtype,
            name="up",
        )(hidden, dropout)  # [B, L, D] -> [B, L, F]
        inner = checkpoint_name(inner, MLP_UP)
        # Only its input is kept for the backward pass: the steps of the tanh form are as large as
        # `inner` each, and cost less to compute again than to store and read.
        inner = jax.checkpoint(partial(nn.gelu, approximate=True), prevent_cse=False)(inner)
        return self.linear(
            (width,),
            ("mlp_in", "hidden"),
            self.output_deviation,
            self.dtype,
            name="down",
        )(inner, dropout)  # [B, L, F] -> [B, L, D]


class Block(nn.Module):
    """One pre-LayerNorm transformer block; attributes as in `SelfAttention`."""

    config: GLMConfig
    linear: LinearKind = Linear

    @nn.compact
    def __call__(
        self,
        hidden: Float[Array, "B L D"],
        prefix_length: Int[Array, "#B"] | None,
        dropout: Dropout | None = None,
        attention_mask: Bool[Array, "#B 1 Q M"] | Int[Array, "#B 1 Q M"] | None = None,
        kv_cache: KVCache | None = None,
    ) -> tuple[Float[Array, "B L D"], LayerCache | None]:
        """Adds attention and then the MLP, each of a normalised input, to the residual stream.

        Returns:
          The stream, and the updated cache of this layer if `kv_cache` is given. The stream
          is also kept as "output" in the collection "intermediates", if that is asked for.

        Source: paper, section 2.2 (pre-LayerNorm order as in Megatron-LM); original code.
        """
        config = self.config
        norm = partial(layer_norm, config.layernorm_epsilon, config.compute_dtype)
        drop = partial(drop_hidden, dropout, config.hidden_dropout)
        attended, cache = SelfAttention(config, self.linear, name="attention")(
            copy_to_tensor_parallel(norm("attention_layernorm")(hidden)),
            prefix_length,
            dropout,
            attention_mask,
            kv_cache,
        )
        hidden = hidden + drop(attended, 0)
        deviation = residual_standard_deviation(config.num_layers)
        mlp = MLP(deviation, config.compute_dtype, self.linear, name="mlp")
        normalized = copy_to_tensor_parallel(norm("mlp_layernorm")(hidden))
        hidden = hidden + drop(mlp(normalized, dropout), 1)
        self.sow("intermediates", "output", hidden)
        return hidden, cache
