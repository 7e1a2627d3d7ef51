"""Multi-head self-attention, the same for every network with prefix attention."""

from __future__ import annotations

from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Bool, Float, Int

from glm_jax.model.attention.choose import attention_function
from glm_jax.model.attention.mask import mask_of_positions
from glm_jax.model.attention.xla import attend
from glm_jax.model.config import GLMConfig
from glm_jax.model.dropout import Dropout
from glm_jax.model.kv_cache import KVCache
from glm_jax.model.layers import (
    INITIAL_STANDARD_DEVIATION,
    Linear,
    LinearKind,
    residual_standard_deviation,
    split_heads,
)
from glm_jax.model.paged_attention import LayerCache, PrefixKeyValue
from glm_jax.model.remat import ATTENTION_OUTPUT
from glm_jax.model.rotary import Rotation, rotate
from glm_jax.parallel.collectives import gather_context, local_offset
from glm_jax.parallel.layout import LENGTH_AXES


class AttentionExtras(NamedTuple):
    """What the attention of some networks takes besides hidden states and masks.

    Attributes:
      rotation: of queries and keys, by their positions.
      prompt_states: what every layer projects its prefix from; None where each has its own.
    """

    rotation: Rotation
    prompt_states: Float[Array, "P D"] | None = None


def take_positions(
    values: Float[Array, "B L *rest"], positions: Int[Array, "B T"]
) -> Float[Array, "B T *rest"]:
    """The values at some positions of each example."""
    index = positions.reshape(*positions.shape, *(1,) * (values.ndim - 2))
    return jnp.take_along_axis(values, index, axis=1)


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
        extras: AttentionExtras | None = None,
        positions: Int[Array, "B T"] | None = None,
    ) -> tuple[Float[Array, "B L D"] | Float[Array, "B T D"], LayerCache | None]:
        """The attended values, of some `positions` or of all, and the updated cache."""
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
        if extras is not None:
            query, key = rotate(query, extras.rotation), rotate(key, extras.rotation)
        prefix = self.prefix(extras, dropout, len(hidden))
        if positions is not None:
            assert prefix_length is not None and attention_mask is None and kv_cache is None
            query = take_positions(query, positions)
            attention_mask = mask_of_positions(prefix_length, positions, key.shape[1])
            dropout = dropout and dropout.at_positions(positions)
        if kv_cache is not None:
            context, cache = kv_cache.attend(query, key, value, prefix)
        else:
            context, cache = (
                self._attend(query, key, value, prefix_length, dropout, attention_mask, prefix),
                None,
            )
        attended = self.linear(
            (width,),
            ("heads_in", "hidden"),
            residual_standard_deviation(config.num_layers),
            config.compute_dtype,
            name="output",
        )(context.reshape(*context.shape[:2], -1), dropout)  # [B, L, H, K] -> [B, L, D]
        return checkpoint_name(attended, ATTENTION_OUTPUT), cache

    def prefix(
        self, extras: AttentionExtras | None, dropout: Dropout | None, batch_size: int
    ) -> PrefixKeyValue | None:
        """Keys and values before those of the sequence, which every position sees; None here."""
        return None

    def _attend(
        self,
        query: Float[Array, "B L H K"],
        key: Float[Array, "B M H K"],
        value: Float[Array, "B M H K"],
        prefix_length: Int[Array, "#B"] | None,
        dropout: Dropout | None,
        attention_mask: Bool[Array, "#B 1 Q M"] | Int[Array, "#B 1 Q M"] | None,
        prefix: PrefixKeyValue | None,
    ) -> Float[Array, "B L H K"]:
        """The kind of attention that the configuration, or a mask, or dropout asks for."""
        config, length = self.config, query.shape[1]
        if attention_mask is not None and attention_mask.shape[2] < length:
            # The mask is that of the last positions; those before see the prefix.
            first = length - attention_mask.shape[2]
            text_query, text_key, text_value = (array[:, :first] for array in (query, key, value))
            last = (query[:, first:], key, value, None)
            last_dropout = dropout and dropout.from_position(first)
            parts = (
                self._attend(
                    text_query, text_key, text_value, prefix_length, dropout, None, prefix
                ),
                self._attend(*last, last_dropout, attention_mask, prefix),
            )
            return jnp.concatenate(parts, axis=1)
        start = local_offset(LENGTH_AXES, length)
        key, value = gather_context(key), gather_context(value)
        if prefix is not None:
            key, value = prefix.before(key, value)
            start += prefix.length
            prefix_length = None if prefix_length is None else prefix_length + prefix.length
            if attention_mask is not None:
                padding = ((0, 0), (0, 0), (0, 0), (prefix.length, 0))
                attention_mask = jnp.pad(attention_mask.astype(bool), padding, constant_values=True)
        drop = None
        if dropout and config.attention_dropout:
            batch, _, num_heads, _ = query.shape
            drop = dropout.probabilities(config.attention_dropout, batch, num_heads, length)
        if attention_mask is not None:
            return attend(query, key, value, None, attention_mask=attention_mask, dropout=drop)
        assert prefix_length is not None
        attention = attention_function(config.attention)
        return attention(query, key, value, prefix_length, start, dropout=drop)
