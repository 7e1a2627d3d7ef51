"""How the kernels of the prefix attention cut their work, and which parts of it the mask hides."""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Int

from glm_jax.errors import UsageError

LANES = 128  # of a vector register: the width of a head group, and what lengths are multiples of
LARGEST_LENGTH = 32_768
_BLOCK_LENGTHS = (512, 384, 256, 128)
# These keep both kernels within the 16 MiB of vector memory that every generation gives a kernel.
_WHOLE_TILE_BYTES = 512 * 1024  # a head group of this size or less is one tile
_PART_TILE_BYTES = 256 * 1024
_LARGEST_SEGMENT = 8_192

Scalar = Int[Array, ""]


@dataclasses.dataclass(frozen=True)
class Tiling:
    """Lengths of the parts, in positions; all are multiples of 128.

    A complete tile is kept in vector memory, and a kernel computes on it block by block. Up to
    2,048 positions in bfloat16 a head group is one tile.

    Attributes:
      query_block, key_block: what one matrix product takes; divide the tiles.
      query_tile, key_tile: what is fetched at a time; divide the lengths.
      segment: queries of one backward kernel, whose gradient stays in vector memory from the first
        key to the last; a multiple of `query_tile` that divides the queries' length.
    """

    query_block: int
    key_block: int
    query_tile: int
    key_tile: int
    segment: int


def choose_tiling(query_length: int, key_length: int, bytes_per_number: int) -> Tiling:
    """The tiling for these lengths.

    Args:
      query_length: L; divides `key_length`.
      key_length: M, a multiple of 128 up to 32,768.
      bytes_per_number: of the dtype of the inputs.

    Raises:
      UsageError: a length is none that the kernels can do.
    """
    for length in (query_length, key_length):
        check_length(length)
    query_tile = _tile_length(query_length, bytes_per_number)
    key_tile = _tile_length(key_length, bytes_per_number)
    return Tiling(
        query_block=_block_length(query_tile, bytes_per_number),
        key_block=_block_length(key_tile, bytes_per_number),
        query_tile=query_tile,
        key_tile=key_tile,
        segment=_largest_divisor(query_length, _LARGEST_SEGMENT, query_tile),
    )


def check_length(length: int) -> None:
    """Refuses lengths that the kernels can't do.

    Raises:
      UsageError: the length is no multiple of 128 up to 32,768.
    """
    if length % LANES or not 0 < length <= LARGEST_LENGTH:
        raise UsageError(
            f"flash attention was given {length} positions, but needs a multiple of {LANES} up to "
            f"{LARGEST_LENGTH}"
        )


def _tile_length(length: int, bytes_per_number: int) -> int:
    row_bytes = LANES * bytes_per_number
    if length * row_bytes <= _WHOLE_TILE_BYTES:
        return length
    return _largest_divisor(length, _PART_TILE_BYTES // row_bytes)


def _largest_divisor(length: int, limit: int, factor: int = LANES) -> int:
    """The largest multiple of `factor` up to `limit` that divides `length`."""
    return max(n for n in range(factor, min(length, limit) + 1, factor) if length % n == 0)


def _block_length(tile: int, bytes_per_number: int) -> int:
    limit = 1024 // bytes_per_number
    return next(block for block in _BLOCK_LENGTHS if block <= limit and tile % block == 0)


def key_bounds(
    first_query: Scalar, num_queries: int, prefix_length: Scalar
) -> tuple[Scalar, Scalar]:
    """Keys below the first number are seen by all of these queries, from the second on by none."""
    return (
        jnp.maximum(first_query + 1, prefix_length),
        jnp.maximum(first_query + num_queries, prefix_length),
    )


def query_bounds(first_key: Scalar, num_keys: int, prefix_length: Scalar) -> tuple[Scalar, Scalar]:
    """Queries below the first position see none of these keys, from the second on they see all."""
    end = first_key + num_keys
    return (
        jnp.where(first_key < prefix_length, 0, first_key),
        jnp.where(end <= prefix_length, 0, end - 1),
    )


def blocks_below(position: Scalar, origin: Scalar, block: int, num_blocks: int) -> Scalar:
    """How many of the blocks that start at `origin` end at or before `position`."""
    return jnp.minimum(lax.div(jnp.maximum(position - origin, 0), block), num_blocks)


def blocks_reaching(position: Scalar, origin: Scalar, block: int, num_blocks: int) -> Scalar:
    """How many of the blocks that start at `origin` start before `position`."""
    return blocks_below(position + (block - 1), origin, block, num_blocks)
