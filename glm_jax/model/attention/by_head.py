"""Prefix attention of a few heads after another, for processors whose caches hold their scores.

Attention over all heads at once writes scores of [B, H, L, M] to main memory and reads them several
times; on a CPU that takes longer than the products. Here the scores of a few heads stay in cache,
and the backward pass makes them again from the sum of exponentials of each query.

Most keys after a query are hidden where prefixes are short. The queries are divided into blocks,
and each block is multiplied with the keys up to its own end, or to the end of the prefix.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from glm_jax.model.attention.heads import (
    Heads,
    KeptHeads,
    Part,
    attend_in_part,
    gradients_of_part,
)
from glm_jax.model.dropout import ProbabilityDropout

# Smaller blocks, or more of them, save fewer products than they make slower.
_MIN_BLOCK, _MAX_BLOCKS = 128, 4
# Scores that are computed at a time, unless those of one head are more: 6 heads of 512 x 512.
_MAX_SCORES = 6 * 512 * 512


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
    batch, length, num_heads, _ = query.shape
    together = _heads_together(num_heads, length * key.shape[1])
    groups = num_heads // together
    prefix = jnp.repeat(jnp.broadcast_to(prefix_length, batch), groups)
    start = jnp.broadcast_to(jnp.asarray(query_start, prefix.dtype), prefix.shape)

    def grouped(array):
        return array.swapaxes(1, 2).reshape(batch * groups, together, array.shape[1], -1)

    rate, streams = 0.0, None
    if dropout is not None:
        rate = dropout.rate
        streams = jax.tree.map(
            lambda word: word.reshape(batch * groups, together, length), dropout.streams
        )
    heads = Heads(grouped(query), grouped(key), grouped(value), prefix, start, streams)
    context = _attention(rate, heads)
    return context.reshape(batch, num_heads, length, -1).swapaxes(1, 2)


def _heads_together(num_heads: int, scores: int) -> int:
    """How many heads of an example are computed at a time: a divisor of their number."""
    limit = max(1, _MAX_SCORES // scores)
    return max(n for n in range(1, min(limit, num_heads) + 1) if num_heads % n == 0)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attention(rate: float, heads: Heads) -> Float[Array, "G H L K"]:
    """Attention of G groups of heads, one group after another."""
    return _forward(rate, heads)[0]


def _forward(rate, heads):
    context, logsumexp = lax.map(functools.partial(_attend_group, rate), heads)
    return context, (heads, context, logsumexp)


def _backward(rate, kept, gradient):
    heads, context, logsumexp = kept
    # The product for the gradient of queries is the faster of two with this layout.
    key_columns = heads.key.swapaxes(-1, -2)
    one_group = functools.partial(_gradients_of_group, rate)
    group = KeptHeads(heads, key_columns, context, logsumexp, gradient)
    by_query, by_key, by_value = lax.map(one_group, group)
    by_query = by_query.swapaxes(-1, -2)
    numbers = {"prefix_length": None, "query_start": None, "streams": None}
    return (heads._replace(query=by_query, key=by_key, value=by_value, **numbers),)


_attention.defvjp(_forward, _backward)


def _attend_group(rate: float, heads: Heads):
    """Context [H, L, K] and logarithm of the sum of exponentials [H, L]."""

    def in_parts(parts: Sequence[Part], heads: Heads):
        results = _one_after_another(functools.partial(attend_in_part, rate), parts, heads)
        return tuple(jnp.concatenate(arrays, axis=1) for arrays in zip(*results, strict=True))

    # Masks depend on the prefix alone: without this, those of all groups are computed once, before
    # the loop over layers, and read from memory in every layer.
    heads = lax.optimization_barrier(heads)
    return _by_prefix(in_parts, heads, heads)


def _gradients_of_group(rate: float, kept: KeptHeads):
    """Gradients of queries [H, K, L], keys and values [H, M, K]."""

    def in_parts(parts: Sequence[Part], kept: KeptHeads):
        results = _one_after_another(functools.partial(gradients_of_part, rate), parts, kept)
        by_query, by_key, by_value = zip(*results, strict=True)
        by_query = jnp.concatenate(by_query, axis=2).astype(kept.heads.query.dtype)
        key, value = kept.heads.key, kept.heads.value
        return by_query, _sum(by_key).astype(key.dtype), _sum(by_value).astype(value.dtype)

    return _by_prefix(in_parts, kept.heads, kept)


def _by_prefix(function: Callable, heads: Heads, arguments: NamedTuple):
    """`function(parts, arguments)` of the fewest parts that the prefix of these heads allows."""
    length, num_keys = heads.query.shape[1], heads.key.shape[1]
    if length != num_keys:  # queries after other keys
        return function([Part(0, length, num_keys)], arguments)
    size = max(_MIN_BLOCK, -(-length // _MAX_BLOCKS))
    ends = [min(end, length) for end in range(size, length + size, size)]
    # With a prefix that ends in block i, all blocks up to that one see the same keys.
    branches = [
        [Part(first, end, end) for first, end in zip([0, *ends[i:]], ends[i:], strict=False)]
        for i in range(len(ends))
    ]
    block = jnp.clip((heads.prefix_length - 1) // size, 0, len(ends) - 1)
    return lax.switch(block, [functools.partial(function, parts) for parts in branches], arguments)


def _one_after_another(function: Callable, parts: Sequence[Part], arguments: NamedTuple) -> list:
    """`function(part, arguments)` of each part, so that not all of their scores are in memory."""
    results = []
    for part in parts:
        result, arguments = lax.optimization_barrier((function(part, arguments), arguments))
        results.append(result)
    return results


def _sum(parts: Sequence[Float[Array, "H _ K"]]) -> Float[Array, "H M K"]:
    """The sum of arrays for leading keys; the last one has all keys."""
    *others, total = parts
    for part in others:
        total = total.at[:, : part.shape[1]].add(part)
    return total
