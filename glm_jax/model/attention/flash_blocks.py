"""What both kernels of the prefix attention do with a block."""

from __future__ import annotations

import math

import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jaxtyping import Array, Bool, Float, Int, UInt32

from glm_jax.model.attention.flash_tiling import LANES, Tiling
from glm_jax.model.random_streams import Streams

HIDDEN_SCORE = -1e30  # finite, so that no difference of two scores is undefined
LOG2_E = math.log2(math.e)
# Of all pairs of queries and keys, how many the mask shows: 0.5 without a prefix, 1 with nothing
# but a prefix. Told to the compiler, which plans by it.
VISIBLE_SHARE = 0.75


def rows(index: Int[Array, ""], length: int) -> slice | pl.Slice:
    """The rows of block `index`."""
    return pl.ds(pl.multiple_of(index * length, length), length)


def product(
    left: Float[Array, "..."],
    right: Float[Array, "..."],
    left_axis: int,
    right_axis: int,
    *,
    interpret: bool,
) -> Float[Array, "..."]:
    """Matrix product over one axis of each, in float32.

    Emulated kernels widen the operands first, which gives the same numbers: XLA for CPUs lacks some
    products of bfloat16.
    """
    if interpret:
        left, right = left.astype(jnp.float32), right.astype(jnp.float32)
    axes = (((left_axis,), (right_axis,)), ((), ()))
    return lax.dot_general(left, right, axes, preferred_element_type=jnp.float32)


def each_head(block: Float[Array, "L 128"], heads: int) -> list[Float[Array, "L 128"]]:
    """For each head of the group, the block with zeros in the lanes of the others.

    A product over the 128 lanes is then one over the lanes of the head, and takes no longer: the
    matrix unit is as wide.
    """
    if heads == 1:
        return [block]
    owner = lax.broadcasted_iota(jnp.int32, block.shape, 1) // (LANES // heads)
    return [jnp.where(owner == head, block, jnp.zeros_like(block)) for head in range(heads)]


def visible(
    first_key: Int[Array, ""],
    first_query: Int[Array, ""],
    prefix_length: Int[Array, ""],
    tiling: Tiling,
) -> Bool[Array, "M L"]:
    """Which keys of a block (first axis) the queries of another (second axis) see."""
    shape = (tiling.key_block, tiling.query_block)
    key = first_key + lax.broadcasted_iota(jnp.int32, shape, 0)
    query = first_query + lax.broadcasted_iota(jnp.int32, (1, tiling.query_block), 1)
    return key <= jnp.maximum(query, prefix_length - 1)


def keep(
    rate: float,
    streams: UInt32[Array, "words L"],
    head: int,
    first_key: Int[Array, ""],
    num_keys: int,
) -> Bool[Array, "M L"]:
    """Which probabilities of a block dropout keeps: keys on the first axis, queries on the second.

    Args:
      rate: the fraction that is dropped.
      streams: of a block of queries, the first words of all heads of a group before the second.
      head: in the group.
      first_key: index of the first key of the block.
      num_keys: in the block.
    """
    words, num_queries = streams.shape
    second = words // 2 + head
    of_head = Streams(streams[head : head + 1], streams[second : second + 1])
    offsets = lax.broadcasted_iota(jnp.int32, (num_keys, num_queries), 0)
    return of_head.keep(rate, first_key + offsets)
