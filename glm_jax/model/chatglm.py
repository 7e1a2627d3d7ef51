"""ChatGLM-6B's network: GLM with rotary positions and another residual stream.

Source: the code of the model's Hugging Face repository, last changed 2023-05-08.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any, ClassVar

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from glm_jax.model.chatglm_config import ChatGLMConfig
from glm_jax.model.decoding import DecodingGLM
from glm_jax.model.dropout import Dropout
from glm_jax.model.glm import GLM
from glm_jax.model.kv_cache import Cache, KVCache
from glm_jax.model.layers import MLP, Linear, LinearKind, layer_norm, residual_standard_deviation
from glm_jax.model.paged_attention import LayerCache, PrefixKeyValue
from glm_jax.model.prefix import PREFIX, LayerPrefix, PrefixEncoder
from glm_jax.model.rotary import rotation_of
from glm_jax.model.self_attention import AttentionExtras, SelfAttention, take_positions
from glm_jax.parallel.collectives import copy_to_tensor_parallel

# Of the input of every half block, whatever the number of layers: its code takes 28.
RESIDUAL_SCALE = math.sqrt(2 * 28)
# What replaces the scores of a position if one of them is no number: one token is certain.
CERTAIN_SCORE = 5e4


class ChatGLMAttention(SelfAttention):
    """Self-attention over a trained prefix and the sequence.

    The original divides queries by the number of the layer, counted from 1, and multiplies scores
    by it, for the range of float16; scores are float32 here, and it changes nothing.
    """

    config: ChatGLMConfig  # pyright: ignore[reportIncompatibleVariableOverride]

    def prefix(
        self, extras: AttentionExtras | None, dropout: Dropout | None, batch_size: int
    ) -> PrefixKeyValue | None:
        """The trained keys and values of this layer."""
        if not self.config.num_prefix_tokens:
            return None
        states = None if extras is None else extras.prompt_states
        return LayerPrefix(self.config, name=PREFIX)(states, dropout, batch_size)


class ChatGLMBlock(nn.Module):
    """One transformer block; attributes as in `SelfAttention`."""

    config: ChatGLMConfig
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
        """As `Block.__call__`, but what is added to is the normalised input of each half."""
        config = self.config
        norm = partial(layer_norm, config.layernorm_epsilon, config.compute_dtype)
        normalized = norm("attention_layernorm")(hidden)
        attended, cache = ChatGLMAttention(config, self.linear, name="attention")(
            copy_to_tensor_parallel(normalized),
            prefix_length,
            dropout,
            attention_mask,
            kv_cache,
            extras,
            positions,
        )
        if positions is not None:
            normalized = take_positions(normalized, positions)
            dropout = dropout and dropout.at_positions(positions)
        hidden = normalized * RESIDUAL_SCALE + attended
        normalized = norm("mlp_layernorm")(hidden)
        deviation = residual_standard_deviation(config.num_layers)
        mlp = MLP(config.mlp_size, deviation, config.compute_dtype, self.linear, name="mlp")
        hidden = normalized * RESIDUAL_SCALE + mlp(copy_to_tensor_parallel(normalized), dropout)
        self.sow("intermediates", "output", hidden)
        return hidden, cache


class ChatGLM(GLM):
    """The network of ChatGLM-6B; used, stacked and sharded as `GLM` is (contract C12).

    `position_ids` [B, 2, L] are those of GLM, the position of the mask and that inside the blank;
    `glm_jax.model.chatglm_inputs` makes them from ids.
    """

    config: ChatGLMConfig  # pyright: ignore[reportIncompatibleVariableOverride]

    def setup(self) -> None:
        super().setup()
        if self.config.num_prefix_tokens and self.config.prefix_projection:
            self.prefix_encoder = PrefixEncoder(self.config)

    def make_block(self, linear: LinearKind) -> Any:
        """As `GLM.make_block`."""
        return ChatGLMBlock(self.config, linear)

    def extras(self, position_ids: Int[Array, "B 2 L"] | Int[Array, "B L"]) -> AttentionExtras:
        """The rotation of positions, and what layers project their prefixes from."""
        config = self.config
        positions = position_ids[:, None] if position_ids.ndim == 2 else position_ids
        kinds = positions if config.block_position_encoding else positions[:, :1]
        states = None
        if config.num_prefix_tokens and config.prefix_projection:
            states = self.prefix_encoder(self.param_specs)
        return AttentionExtras(
            rotation_of(kinds, config.head_size, config.rotary_precision), states
        )


class DecodingChatGLM(DecodingGLM, ChatGLM):
    """`ChatGLM` for decoding, with parameters as `decoding_params` gives them."""

    residual_scale: ClassVar[float | None] = RESIDUAL_SCALE

    def _fits(self, cache: Cache) -> bool:
        """As `DecodingGLM._fits`; prefixes have plain operations."""
        return not self.config.num_prefix_tokens and super()._fits(cache)

    def scores(self, logits: Float[Array, "B V"]) -> Float[Array, "B V"]:
        """As `DecodingGLM.scores`, with invalid ones replaced."""
        return replace_invalid(super().scores(logits), self.config.fallback_token)


def replace_invalid(scores: Float[Array, "B V"], fallback: int) -> Float[Array, "B V"]:
    """The scores, but where one is NaN or infinite, those of a position that is certain of a token.

    The original replaces the scores of all rows of a batch then; here each row is by itself, as if
    it were alone.
    """
    invalid = ~jnp.all(jnp.isfinite(scores), axis=-1, keepdims=True)
    certain = jnp.zeros(scores.shape[1], scores.dtype).at[fallback].set(CERTAIN_SCORE)
    return jnp.where(invalid, certain, scores)
