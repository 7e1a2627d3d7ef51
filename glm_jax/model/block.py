"""The transformer block of GLM: LayerNorm, attention, LayerNorm, MLP."""

from __future__ import annotations

from functools import partial

import flax.linen as nn
from jaxtyping import Array, Bool, Float, Int

from glm_jax.model.config import GLMConfig
from glm_jax.model.dropout import Dropout, drop_hidden
from glm_jax.model.kv_cache import KVCache
from glm_jax.model.layers import MLP, Linear, LinearKind, layer_norm, residual_standard_deviation
from glm_jax.model.paged_attention import LayerCache
from glm_jax.model.self_attention import AttentionExtras, SelfAttention, take_positions
from glm_jax.parallel.collectives import copy_to_tensor_parallel


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
        extras: AttentionExtras | None = None,
        positions: Int[Array, "B T"] | None = None,
    ) -> tuple[Float[Array, "B L D"] | Float[Array, "B T D"], LayerCache | None]:
        """Adds attention and then the MLP, each of a normalised input, to the residual stream.

        Returns:
          The stream, of some `positions` or of all, and the updated cache of this layer if
          `kv_cache` is given. The stream is also kept as "output" in the collection
          "intermediates", if that is asked for.

        Source: paper, section 2.2 (pre-LayerNorm order as in Megatron-LM); original code.
        """
        config = self.config
        norm = partial(layer_norm, config.layernorm_epsilon, config.compute_dtype)
        attended, cache = SelfAttention(config, self.linear, name="attention")(
            copy_to_tensor_parallel(norm("attention_layernorm")(hidden)),
            prefix_length,
            dropout,
            attention_mask,
            kv_cache,
            extras,
            positions,
        )
        if positions is not None:
            hidden = take_positions(hidden, positions)
            dropout = dropout and dropout.at_positions(positions)
        drop = partial(drop_hidden, dropout, config.hidden_dropout)
        hidden = hidden + drop(attended, 0)
        deviation = residual_standard_deviation(config.num_layers)
        mlp = MLP(config.mlp_size, deviation, config.compute_dtype, self.linear, name="mlp")
        normalized = copy_to_tensor_parallel(norm("mlp_layernorm")(hidden))
        hidden = hidden + drop(mlp(normalized, dropout), 1)
        self.sow("intermediates", "output", hidden)
        return hidden, cache
