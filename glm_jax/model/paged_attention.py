"""Attention over a key/value cache in pages of 64 slots, of which only those in use are read."""

from __future__ import annotations

import math
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from glm_jax.model.attention.xla import MASKED_SCORE

PAGE_SIZE = 64
# Pages that accelerators read in a round of the loop, each of whose operations takes a time of its
# own however small it is. CPUs read one, so that none is read that is not in use.
PAGES_AT_ONCE = 16
# Queries that fill a tile of a TPU's registers: the products of fewer are vector operations, which
# the compiler estimates at 20 times as long.
MIN_QUERIES = 8


class LayerCache(NamedTuple):
    """Keys and values of one layer: P pages, each of 64 slots for every example and head."""

    key: Float[Array, "P B H 64 K"]
    value: Float[Array, "P B H 64 K"]


class PrefixKeyValue(NamedTuple):
    """Trained keys and values before those of the sequence: the same for all examples, or not."""

    key: Float[Array, "#B P H K"]
    value: Float[Array, "#B P H K"]

    @property
    def length(self) -> int:
        """Number of them, P."""
        return self.key.shape[1]

    def before(
        self, key: Float[Array, "B M H K"], value: Float[Array, "B M H K"]
    ) -> tuple[Float[Array, "B P+M H K"], Float[Array, "B P+M H K"]]:
        """Keys and values of sequences, with the prefix before them."""
        shape = (key.shape[0], *self.key.shape[1:])
        return (
            jnp.concatenate([jnp.broadcast_to(self.key, shape).astype(key.dtype), key], axis=1),
            jnp.concatenate([jnp.broadcast_to(self.value, shape).astype(key.dtype), value], axis=1),
        )


def attend_pages(
    query: Float[Array, "B L H K"],
    cache: LayerCache,
    visible: Bool[Array, "B 1 L M"],
    num_pages: Int[Array, ""],
    prefix: PrefixKeyValue | None = None,
) -> Float[Array, "B L H K"]:
    """Attention over the first pages of a cache and over a prefix, as the platform does it best."""
    return jax.lax.platform_dependent(
        *(query, cache, visible, num_pages, prefix),
        cpu=attend_groups_of_pages,
        tpu=partial(attend_groups_of_pages, at_once=PAGES_AT_ONCE, min_queries=MIN_QUERIES),
        default=partial(attend_groups_of_pages, at_once=PAGES_AT_ONCE),
    )


def attend_groups_of_pages(
    query: Float[Array, "B L H K"],
    cache: LayerCache,
    visible: Bool[Array, "B 1 L M"],
    num_pages: Int[Array, ""],
    prefix: PrefixKeyValue | None = None,
    *,
    at_once: int = 1,
    min_queries: int = 1,
) -> Float[Array, "B L H K"]:
    """Attention over the first pages of a cache, one group after another, and over a prefix.

    Scores and sums are float32, as in `attend`; the softmax is built up group by group (Milakov and
    Gimelshein, 2018, algorithm 3).

    Args:
      query: of the new positions.
      cache, visible, num_pages: as in `PagedKVCache`.
      prefix: seen by every position.
      at_once: pages of a group, or what the number of all pages has in common with that.
      min_queries: fewer queries are repeated to so many.
    """
    batch, length = query.shape[:2]
    query = jnp.swapaxes(query, 1, 2) * query.shape[-1] ** -0.5  # [B, H, L, K]
    if length < min_queries:
        rows = jnp.arange(min_queries) % length
        # Behind the barrier the compiler does not see that rows are equal.
        query, visible = jax.lax.optimization_barrier((query[:, :, rows], visible[:, :, rows]))
    shape = query.shape[:3]
    lowest = jnp.full((*shape, 1), jnp.finfo(jnp.float32).min)
    sums = (lowest, jnp.zeros((*shape, 1)), jnp.zeros(query.shape))
    if prefix is not None:
        size = (batch, *prefix.key.shape[1:])
        key, value = (
            jnp.swapaxes(jnp.broadcast_to(array, size), 1, 2).astype(cache.key.dtype)[None]
            for array in prefix
        )  # [1, B, H, M, K]
        sums = _add_keys(sums, query, key, value, jnp.ones((1, 1, 1, prefix.length), bool))
    count = math.gcd(at_once, len(cache.key))
    slots = count * PAGE_SIZE

    def add_group(group: Int[Array, ""], sums: tuple) -> tuple:
        key, value = (jax.lax.dynamic_slice_in_dim(pages, group * count, count) for pages in cache)
        seen = jax.lax.dynamic_slice_in_dim(visible, group * slots, slots, axis=3)
        return _add_keys(sums, query, key, value, seen)

    _, total, context = jax.lax.fori_loop(0, -(-num_pages // count), add_group, sums)
    if length < min_queries:
        total, context = jax.lax.optimization_barrier((total, context))
        total, context = total[:, :, :length], context[:, :, :length]
    return jnp.swapaxes(context / total, 1, 2).astype(cache.value.dtype)


def _add_keys(
    sums: tuple,
    query: Float[Array, "B H L K"],
    key: Float[Array, "P B H M K"],
    value: Float[Array, "P B H M K"],
    visible: Bool[Array, "#B 1 #L P*M"],
) -> tuple:
    """The running maximum, total and context of a softmax, with more keys, in pages of M."""
    maximum, total, context = sums
    scores = jnp.einsum("bhlk,pbhmk->bhlpm", query, key, preferred_element_type=jnp.float32)
    pages = scores.shape[3:]
    scores = jnp.where(visible, scores.reshape(*scores.shape[:3], -1), MASKED_SCORE)
    new_maximum = jnp.maximum(maximum, jnp.max(scores, axis=-1, keepdims=True))
    weights = jnp.exp(scores - new_maximum)
    fading = jnp.exp(maximum - new_maximum)
    added = jnp.einsum(
        "bhlpm,pbhmk->bhlk",
        weights.astype(value.dtype).reshape(*weights.shape[:3], *pages),
        value,
        preferred_element_type=jnp.float32,
    )
    total = total * fading + jnp.sum(weights, axis=-1, keepdims=True)
    return new_maximum, total, context * fading + added
