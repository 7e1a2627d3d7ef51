"""Prefix attention one head after another, for processors whose caches hold the scores of a head.

Attention over all heads at once writes scores of [B, H, L, M] to main memory and reads them several
times; on a CPU that takes longer than the products. Here the scores of one head stay in cache, and
the backward pass makes them again from the sum of exponentials of each query.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from glm_jax.model.attention.mask import mask_of_part
from glm_jax.model.attention.xla import MASKED_SCORE
from glm_jax.model.dropout import ProbabilityDropout, scale_kept
from glm_jax.model.random_streams import Streams

_product = functools.partial(jnp.einsum, preferred_element_type=jnp.float32)


def attend_by_head(
    query: Float[Array, "B L H K"],
    key: Float[Array, "B M H K"],
    value: Float[Array, "B M H K"],
    prefix_length: Int[Array, "#B"],
    query_start: Int[Array, ""] | int = 0,
    dropout: ProbabilityDropout | None = None,
) -> Float[Array, "B L H K"]:
    """Scaled dot-product attention under the prefix mask, as `attend` computes it.

    Scores and softmax are float32; products take the dtype of the inputs, which is also that of the
    result. Examples and heads become one axis, so these may not be spread over devices.

    Args:
      query, key, value: one vector per position and head.
      prefix_length: leading keys that every query of that example sees.
      query_start: position of the first query among the keys.
      dropout: of the probabilities.
    """
    batch, _, num_heads, _ = query.shape
    prefix = jnp.repeat(jnp.broadcast_to(prefix_length, batch), num_heads)
    start = jnp.broadcast_to(jnp.asarray(query_start, prefix.dtype), prefix.shape)
    heads = [_flatten(array) for array in (query, key, value)]
    rate, streams = 0.0, None
    if dropout is not None:
        rate = dropout.rate
        streams = jax.tree.map(lambda word: word.reshape(-1, word.shape[-1]), dropout.streams)
    context = _attention(rate, *heads, prefix, start, streams)
    return context.reshape(batch, num_heads, *context.shape[1:]).swapaxes(1, 2)


def _flatten(array: Float[Array, "B L H K"]) -> Float[Array, "B*H L K"]:
    batch, length, num_heads, head_size = array.shape
    return array.swapaxes(1, 2).reshape(batch * num_heads, length, head_size)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attention(
    rate: float,
    query: Float[Array, "G L K"],
    key: Float[Array, "G M K"],
    value: Float[Array, "G M K"],
    prefix_length: Int[Array, "G"],
    query_start: Int[Array, "G"],
    streams: Streams | None,
) -> Float[Array, "G L K"]:
    """Attention of G heads of any examples, each with its prefix, and its streams for dropout."""
    return _forward(rate, query, key, value, prefix_length, query_start, streams)[0]


def _forward(rate, *arguments):
    context, logsumexp = lax.map(functools.partial(_one_head, rate), arguments)
    return context, (*arguments, context, logsumexp)


def _backward(rate, kept, gradient):
    one_head = functools.partial(_one_head_backward, rate)
    by_query, by_key, by_value = lax.map(one_head, (*kept, gradient))
    return by_query, by_key, by_value, None, None, None


_attention.defvjp(_forward, _backward)


def _visible(query, key, prefix_length, query_start):
    """Which keys each query sees, [L, M]."""
    return mask_of_part(prefix_length[None], query_start, query.shape[0], key.shape[0])[0, 0]


def _one_head(rate, arguments):
    """Context [L, K] and logarithm of the sum of exponentials [L] of one head."""
    query, key, value, prefix_length, query_start, streams = arguments
    scores = _product("lk,mk->lm", query * query.shape[1] ** -0.5, key)
    scores = jnp.where(_visible(query, key, prefix_length, query_start), scores, MASKED_SCORE)
    maximum = jnp.max(scores, axis=1, keepdims=True)
    weights = jnp.exp(scores - maximum)
    total = jnp.sum(weights, axis=1, keepdims=True)
    if streams is not None:
        kept = streams.expand(1).keep(rate, jnp.arange(len(key)))
        weights = scale_kept(rate, weights, kept)
    context = _product("lm,mk->lk", weights.astype(value.dtype), value) / total
    return context.astype(query.dtype), (maximum + jnp.log(total))[:, 0]


def _one_head_backward(rate, arguments):
    """Gradients of query [L, K], key and value [M, K] of one head.

    Scores are laid out as [keys, queries], so that two of the three gradients are products of
    arrays in their memory layout.
    """
    query, key, value, prefix_length, query_start, streams = arguments[:6]
    context, logsumexp, gradient = arguments[6:]
    scale = query.shape[1] ** -0.5
    scaled = query * scale
    weights = jnp.exp(_product("mk,lk->ml", key, scaled) - logsumexp)
    weights = jnp.where(_visible(query, key, prefix_length, query_start).T, weights, 0.0)
    # The same with dropout: the context is the sum of what was kept.
    offset = jnp.sum(gradient.astype(jnp.float32) * context, axis=1)
    by_weights = _product("mk,lk->ml", value, gradient)
    used = weights
    if streams is not None:
        kept = streams.expand(0).keep(rate, jnp.arange(len(key))[:, None])
        by_weights, used = scale_kept(rate, by_weights, kept), scale_kept(rate, weights, kept)
    by_scores = weights * (by_weights - offset)
    by_scores, used = by_scores.astype(key.dtype), used.astype(value.dtype)
    by_query = _product("ml,mk->lk", by_scores, key) * scale
    by_key = _product("ml,lk->mk", by_scores, scaled)
    by_value = _product("ml,lk->mk", used, gradient)
    return by_query.astype(query.dtype), by_key.astype(key.dtype), by_value.astype(value.dtype)
