"""Attention over a key/value cache in pages, of which only what is in use is read.

On CPUs a page has 64 slots, so that few are read that are not in use, and an axis of heads. On TPUs
1,024 slots are read at a time, since every operation takes a time of its own however small it is;
all are in one page, which the compiler updates in place; and a device stores the keys of all its
heads of a position as one row, as a projection gives them: a head of 64 would be padded to 128 in
memory. Scores are the products of these rows with one row for each head, the query inside the head
and zero outside. That is more arithmetic, on matrix units which wait for the memory anyway, and
needs no array in another layout. One new position of every example has kernels of its own there,
see `decode_kernels`.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from glm_jax.model.attention.xla import MASKED_SCORE

# Slots of the smallest page. Caches and prompts have multiples of it.
PAGE_SIZE = 64
_MAX_SLOTS_AT_ONCE = 1024
# Queries that fill a tile of a TPU's registers: the products of fewer are vector operations, which
# the compiler estimates at 20 times as long.
MIN_QUERIES = 8


class CacheLayout(NamedTuple):
    """How a cache stores keys and values.

    Attributes:
      page_size: slots of a page.
      heads_of_row: heads of a slot that are stored as one row.
    """

    page_size: int = PAGE_SIZE
    heads_of_row: int = 1


def cache_layout(platform: str, num_slots: int, num_heads: int, num_shards: int) -> CacheLayout:
    """The layout that a platform reads fastest.

    Args:
      platform: of the devices, such as "tpu".
      num_slots: of an example, M, a multiple of the page size.
      num_heads: of the network, H.
      num_shards: devices that divide the heads among them.
    """
    if platform == "cpu":
        return CacheLayout()
    if platform == "tpu":
        shared = num_heads % num_shards == 0  # else every device has all heads
        return CacheLayout(num_slots, num_heads // num_shards if shared else num_heads)
    return CacheLayout(math.gcd(num_slots, _MAX_SLOTS_AT_ONCE))


class LayerCache(NamedTuple):
    """Keys and values of one layer: P pages, each of S slots for every example.

    Heads are in G groups; a row of W numbers has those of H / G heads.
    """

    key: Float[Array, "P B G S W"]
    value: Float[Array, "P B G S W"]

    @property
    def page_size(self) -> int:
        """Slots of a page, S."""
        return self.key.shape[3]

    @property
    def slots_at_once(self) -> int:
        """Slots that attention reads at a time: of a page."""
        return math.gcd(self.page_size, _MAX_SLOTS_AT_ONCE)

    @property
    def num_slots(self) -> int:
        """Slots of an example, M."""
        return len(self.key) * self.page_size


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


def in_groups(array: Float[Array, "B H L K"], num_groups: int) -> Float[Array, "B G L W"]:
    """Keys or values as a cache with that number of groups of heads stores them."""
    batch, _, length, size = array.shape
    split = array.reshape(batch, num_groups, -1, length, size)
    return split.swapaxes(2, 3).reshape(batch, num_groups, length, -1)


def by_head(array: Float[Array, "B G L W"], num_heads: int) -> Float[Array, "B H L K"]:
    """The inverse of `in_groups`."""
    batch, groups, length, _ = array.shape
    split = array.reshape(batch, groups, length, num_heads // groups, -1)
    return split.swapaxes(2, 3).reshape(batch, num_heads, length, -1)


def attend_pages(
    query: Float[Array, "B L H K"],
    cache: LayerCache,
    visible: Bool[Array, "B 1 L M"],
    num_slots: Int[Array, ""],
    prefix: PrefixKeyValue | None = None,
) -> Float[Array, "B L H K"]:
    """`attend_at_least` with as many rows of queries as the platform wants."""
    inputs = (query, cache, visible, num_slots, prefix)
    on_tpu, elsewhere = (partial(attend_at_least, number) for number in (MIN_QUERIES, 1))
    return jax.lax.platform_dependent(*inputs, tpu=on_tpu, default=elsewhere)


def attend_at_least(
    min_queries: int,
    query: Float[Array, "B L H K"],
    cache: LayerCache,
    visible: Bool[Array, "B 1 L M"],
    num_slots: Int[Array, ""],
    prefix: PrefixKeyValue | None = None,
) -> Float[Array, "B L H K"]:
    """Attention over the first slots of a cache, some at a time, and over a prefix.

    Scores and sums are float32, as in `attend`; the softmax is built up round by round (Milakov and
    Gimelshein, 2018, algorithm 3).

    Args:
      min_queries: fewer rows of queries are repeated to so many.
      query: of the new positions.
      cache, visible, num_slots: as in `PagedKVCache`.
      prefix: seen by every position.
    """
    batch, length, heads, size = query.shape
    # With many queries the products with zeros would take longer than another layout does.
    groups = cache.key.shape[2] if length < MIN_QUERIES else heads
    rows = _rows((query * size**-0.5).reshape(batch, length, groups, -1), heads // groups)
    number, slots = rows.shape[2], cache.slots_at_once
    if length > 1:
        visible = jnp.tile(visible, (1, 1, number // length, 1))
    if number < min_queries:
        index = jnp.arange(min_queries) % number
        # Behind the barrier the compiler does not see that rows are equal.
        rows = jax.lax.optimization_barrier(rows[:, :, index])
        visible = visible if length == 1 else visible[:, :, index]

    def add_slots(part: Int[Array, ""] | int, sums: tuple | None) -> tuple:
        first = part * slots
        key, value = (_slots(pages, first, slots) for pages in cache)
        seen = jax.lax.dynamic_slice_in_dim(visible, first, slots, axis=3)
        if groups != key.shape[1]:
            key, value = by_head(key, heads), by_head(value, heads)
        return _add_keys(sums, rows, key, value, seen)

    sums = None if prefix is None else _prefix_sums(rows, prefix, cache.key.dtype)
    if slots == cache.num_slots:
        sums = add_slots(0, sums)
    else:
        sums = sums or _sums_of_nothing(rows)
        sums = jax.lax.fori_loop(0, -(-num_slots // slots), add_slots, sums)
    _, total, context = sums
    context = context / total
    if number < min_queries:
        context = jax.lax.optimization_barrier(context)[:, :, :number]
    return _own_heads(context, length).reshape(query.shape).astype(cache.value.dtype)


def _slots(
    pages: Float[Array, "P B G S W"], first: Int[Array, ""] | int, number: int
) -> Float[Array, "B G M W"]:
    """Some slots of one page."""
    page_size = pages.shape[3]
    start = (first // page_size, 0, 0, first % page_size, 0)
    sizes = (1, *pages.shape[1:3], number, pages.shape[4])
    return jax.lax.dynamic_slice(pages, start, sizes)[0]


def _heads_of_numbers(num_heads: int, width: int) -> Bool[Array, "heads 1 W"]:
    """Which numbers of a row belong to each of its heads."""
    return jnp.arange(num_heads)[:, None, None] == jnp.arange(width) // (width // num_heads)


def _rows(query: Float[Array, "B L G W"], num_heads: int) -> Float[Array, "B G R W"]:
    """A row for each head of a group and query, zero outside the head; R is the heads times L."""
    batch, length, groups, width = query.shape
    own = _heads_of_numbers(num_heads, width)
    rows = jnp.where(own, jnp.swapaxes(query, 1, 2)[:, :, None], 0)  # [B, G, heads, L, W]
    return rows.reshape(batch, groups, num_heads * length, width)


def _own_heads(context: Float[Array, "B G R W"], length: int) -> Float[Array, "B L G W"]:
    """What each query has found in its own heads, from rows as `_rows` orders them."""
    batch, groups, rows, width = context.shape
    split = context.reshape(batch, groups, rows // length, length, width)
    own = _heads_of_numbers(rows // length, width)
    return jnp.swapaxes(jnp.sum(jnp.where(own, split, 0), axis=2), 1, 2)


def _prefix_sums(rows: Float[Array, "B G R W"], prefix: PrefixKeyValue, dtype: Any) -> tuple:
    """The sums of `_add_keys` with the keys of a prefix."""
    batch, groups = rows.shape[:2]
    shape = (batch, *prefix.key.shape[1:])
    arrays = (jnp.swapaxes(jnp.broadcast_to(array, shape), 1, 2).astype(dtype) for array in prefix)
    key, value = (in_groups(array, groups) for array in arrays)
    return _add_keys(None, rows, key, value, jnp.ones((1, 1, 1, prefix.length), bool))


def _sums_of_nothing(rows: Float[Array, "B G R W"]) -> tuple:
    """The sums of `_add_keys` before the first keys."""
    shape = (*rows.shape[:3], 1)
    return jnp.full(shape, jnp.finfo(jnp.float32).min), jnp.zeros(shape), jnp.zeros(rows.shape)


def _add_keys(
    sums: tuple | None,
    rows: Float[Array, "B G R W"],
    key: Float[Array, "B G M W"],
    value: Float[Array, "B G M W"],
    visible: Bool[Array, "#B 1 #R M"],
) -> tuple:
    """The maximum, total and context of a softmax so far, with the keys of M more slots."""
    scores = jnp.einsum("bgrw,bgmw->bgrm", rows, key, preferred_element_type=jnp.float32)
    scores = jnp.where(visible, scores, MASKED_SCORE)
    maximum = jnp.max(scores, axis=-1, keepdims=True)
    if sums is not None:
        maximum = jnp.maximum(sums[0], maximum)
    weights = jnp.exp(scores - maximum)
    context = jnp.einsum(
        "bgrm,bgmw->bgrw",
        weights.astype(value.dtype),
        value,
        preferred_element_type=jnp.float32,
    )
    total = jnp.sum(weights, axis=-1, keepdims=True)
    if sums is not None:
        fading = jnp.exp(sums[0] - maximum)
        total, context = sums[1] * fading + total, sums[2] * fading + context
    return maximum, total, context
