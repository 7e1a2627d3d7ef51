"""Attention of some queries of a few heads, and its gradients, by plain operations."""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from glm_jax.model.attention.mask import mask_of_part
from glm_jax.model.attention.xla import MASKED_SCORE
from glm_jax.model.dropout import scale_kept
from glm_jax.model.random_streams import Streams

_product = functools.partial(jnp.einsum, preferred_element_type=jnp.float32)


class Heads(NamedTuple):
    """Some heads of one example; or groups of those, with one more axis in front.

    Attributes:
      query, key, value: one vector per head and position.
      prefix_length: leading keys that every query sees.
      query_start: position of the first query among the keys.
      streams: for dropout of the probabilities, of each query [H, L]; None without.
    """

    query: Float[Array, "*G H L K"]
    key: Float[Array, "*G H M K"]
    value: Float[Array, "*G H M K"]
    prefix_length: Int[Array, "*G"]
    query_start: Int[Array, "*G"]
    streams: Streams | None


class KeptHeads(NamedTuple):
    """What the backward pass of some heads takes.

    Attributes:
      heads: the inputs of the forward pass.
      key_columns: the keys with their positions along the last axis.
      context: the result of the forward pass.
      logsumexp: logarithm of the sum of exponentials of each query's scores.
      gradient: by the context.
    """

    heads: Heads
    key_columns: Float[Array, "*G H K M"]
    context: Float[Array, "*G H L K"]
    logsumexp: Float[Array, "*G H L"]
    gradient: Float[Array, "*G H L K"]


class Part(NamedTuple):
    """The queries from `first` up to `last`, which is not among them, and the leading keys."""

    first: int
    last: int
    num_keys: int

    def visible(self, heads: Heads) -> Bool[Array, "1 l m"]:
        """Which keys each query sees."""
        start = heads.query_start + self.first
        return mask_of_part(
            heads.prefix_length[None], start, self.last - self.first, self.num_keys
        )[0]

    def of_queries(self, array: Array) -> Array:
        """The elements of [H, L, ...] for these queries."""
        return array[:, self.first : self.last]

    def of_keys(self, array: Array) -> Array:
        """The elements of [H, M, ...] for these keys."""
        return array[:, : self.num_keys]

    def streams(self, heads: Heads) -> Streams | None:
        """Those for the dropout of these queries, [H, l]."""
        return jax.tree.map(self.of_queries, heads.streams)


def attend_in_part(
    rate: float, part: Part, heads: Heads
) -> tuple[Float[Array, "H l K"], Float[Array, "H l"]]:
    """Context, and logarithm of the sum of exponentials, of l queries over m keys."""
    query = part.of_queries(heads.query) * heads.query.shape[-1] ** -0.5
    key, value = part.of_keys(heads.key), part.of_keys(heads.value)
    scores = _product("hlk,hmk->hlm", query, key)
    scores = jnp.where(part.visible(heads), scores, MASKED_SCORE)
    maximum = jnp.max(scores, axis=-1, keepdims=True)
    weights = jnp.exp(scores - maximum)
    total = jnp.sum(weights, axis=-1, keepdims=True)
    streams = part.streams(heads)
    if streams is not None:
        kept = streams.expand(-1).keep(rate, jnp.arange(part.num_keys))
        weights = scale_kept(rate, weights, kept)
    context = _product("hlm,hmk->hlk", weights.astype(value.dtype), value) / total
    return context.astype(query.dtype), (maximum + jnp.log(total))[..., 0]


def gradients_of_part(
    rate: float, part: Part, kept: KeptHeads
) -> tuple[Float[Array, "H K l"], Float[Array, "H m K"], Float[Array, "H m K"]]:
    """What l queries over m keys add to the gradients of queries, keys and values, in float32.

    Scores are laid out as [keys, queries]: the three gradients are products of arrays in their
    memory layout, with the positions of the queries along the last axis of theirs.
    """
    heads = kept.heads
    scale = heads.query.shape[-1] ** -0.5
    scaled = part.of_queries(heads.query) * scale
    context, gradient = part.of_queries(kept.context), part.of_queries(kept.gradient)
    key, value = part.of_keys(heads.key), part.of_keys(heads.value)
    logsumexp = part.of_queries(kept.logsumexp)[:, None, :]
    weights = jnp.exp(_product("hmk,hlk->hml", key, scaled) - logsumexp)
    weights = jnp.where(part.visible(heads).swapaxes(1, 2), weights, 0.0)
    # The same with dropout: the context is the sum of what was kept.
    offset = jnp.sum(gradient.astype(jnp.float32) * context, axis=-1)[:, None, :]
    by_weights = _product("hmk,hlk->hml", value, gradient)
    used = weights
    streams = part.streams(heads)
    if streams is not None:
        keep = streams.expand(-2).keep(rate, jnp.arange(part.num_keys)[:, None])
        by_weights, used = scale_kept(rate, by_weights, keep), scale_kept(rate, weights, keep)
    by_scores = weights * (by_weights - offset)
    by_scores, used = by_scores.astype(key.dtype), used.astype(value.dtype)
    key_columns = kept.key_columns[:, :, : part.num_keys]
    by_query = _product("hkm,hml->hkl", key_columns, by_scores) * scale
    by_key = _product("hml,hlk->hmk", by_scores, scaled)
    by_value = _product("hml,hlk->hmk", used, gradient)
    return by_query, by_key, by_value
