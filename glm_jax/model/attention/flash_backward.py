"""The backward pass of the prefix attention: its segments, grid and call."""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int, UInt32

from glm_jax.model.attention.flash_backward_kernel import kernel
from glm_jax.model.attention.flash_blocks import (
    VISIBLE_SHARE,
)
from glm_jax.model.attention.flash_tiling import (
    LANES,
    Tiling,
    blocks_below,
    key_bounds,
    query_bounds,
)


class Queries(NamedTuple):
    """What the backward pass knows of each query.

    Attributes:
      query: as given to the forward pass.
      context: its result.
      logsumexp: what it kept.
      gradient: of the loss by the context.
      streams: for dropout, as given to the forward pass.
    """

    query: Float[Array, "B L lanes"]
    context: Float[Array, "B L lanes"]
    logsumexp: Float[Array, "B G heads L"]
    gradient: Float[Array, "B L lanes"]
    streams: UInt32[Array, "B G words L"] | None

    def part(self, first: Int[Array, ""], length: int) -> Queries:
        """`length` of the queries, from `first` on."""

        def cut(array: Array, axis: int) -> Array:
            return lax.dynamic_slice_in_dim(array, first, length, axis)

        return Queries(
            cut(self.query, 1),
            cut(self.context, 1),
            cut(self.logsumexp, 3),
            cut(self.gradient, 1),
            cut(self.streams, 3) if self.streams is not None else None,
        )


Gradients = tuple[
    Float[Array, "B L lanes"],
    Float[Array, "B M lanes"],
    Float[Array, "B M lanes"],
]


def backward(
    queries: Queries,
    key: Float[Array, "B M lanes"],
    value: Float[Array, "B M lanes"],
    prefix_length: Int[Array, "B"],
    query_start: Int[Array, "1"],
    *,
    heads: int,
    scale: float,
    dropout_rate: float,
    tiling: Tiling,
    interpret: bool,
) -> Gradients:
    """Gradients of query, key and value; the other arguments are those of the forward pass.

    Longer queries than a segment are done in several, the gradients of keys and values added up in
    float32.
    """
    settings = {"heads": heads, "scale": scale, "dropout_rate": dropout_rate}
    run = functools.partial(_segment, **settings, tiling=tiling, interpret=interpret)
    length, segment = queries.query.shape[1], tiling.segment
    if length == segment:
        return run(queries, key, value, prefix_length, query_start, sum_dtype=key.dtype)

    def add_segment(index: Int[Array, ""], gradients: Gradients) -> Gradients:
        first = index * segment
        part = queries.part(first, segment)
        by_query, by_key, by_value = run(
            part, key, value, prefix_length, query_start + first, sum_dtype=jnp.float32
        )
        return (
            lax.dynamic_update_slice_in_dim(gradients[0], by_query, first, 1),
            gradients[1] + by_key,
            gradients[2] + by_value,
        )

    zeros = jnp.zeros(key.shape, jnp.float32)
    by_query, by_key, by_value = lax.fori_loop(
        0, length // segment, add_segment, (jnp.zeros_like(queries.query), zeros, zeros)
    )
    return by_query, by_key.astype(key.dtype), by_value.astype(value.dtype)


def _segment(
    queries: Queries,
    key: Float[Array, "B M lanes"],
    value: Float[Array, "B M lanes"],
    prefix_length: Int[Array, "B"],
    query_start: Int[Array, "1"],
    *,
    heads: int,
    scale: float,
    dropout_rate: float,
    tiling: Tiling,
    interpret: bool,
    sum_dtype: DTypeLike,
) -> Gradients:
    """The gradients of one segment of queries, those of keys and values in `sum_dtype`."""
    batch, length, width = queries.query.shape
    num_keys = key.shape[1]
    products = 2 * batch * length * num_keys * width * VISIBLE_SHARE
    settings = {"heads": heads, "scale": scale, "dropout_rate": dropout_rate}
    arguments = [prefix_length, query_start, *queries[:4], key, value]
    if queries.streams is not None:
        arguments.append(queries.streams)
    return pl.pallas_call(
        functools.partial(kernel, **settings, tiling=tiling, interpret=interpret),
        out_shape=(
            jax.ShapeDtypeStruct(queries.query.shape, queries.query.dtype),
            jax.ShapeDtypeStruct(key.shape, sum_dtype),
            jax.ShapeDtypeStruct(value.shape, sum_dtype),
        ),
        grid_spec=_grid(queries.query.shape, num_keys, heads, tiling, queries.streams is not None),
        compiler_params=pltpu.CompilerParams(
            dimension_semantics=("parallel", "parallel", "arbitrary", "arbitrary")
        ),
        cost_estimate=pl.CostEstimate(
            flops=int(5 * products),
            transcendentals=int(products // (2 * LANES) * heads),
            bytes_accessed=4 * queries.query.nbytes + 4 * key.nbytes,
        ),
        interpret=interpret,
        name="prefix_flash_backward",
    )(*arguments)


def _grid(
    query_shape: tuple[int, ...], num_keys: int, heads: int, tiling: Tiling, has_streams: bool
) -> pltpu.PrefetchScalarGridSpec:
    """Examples, groups of heads, tiles of keys, tiles of queries; the last runs innermost."""
    batch, length, width = query_shape
    num_queries, tile = tiling.query_tile, tiling.key_tile
    steps = length // num_queries

    def visited_query(j, i, prefix, start):
        # Tiles of queries that see nothing of these keys are not fetched.
        first, _ = query_bounds(j * tile, tile, prefix)
        hidden = blocks_below(first, start, num_queries, steps - 1)
        return jnp.maximum(i, hidden)

    def query_tile(b, g, j, i, prefix_ref, start_ref):
        return b, visited_query(j, i, prefix_ref[b], start_ref[0]), g

    def group_tile(b, g, j, i, prefix_ref, start_ref):
        return b, g, 0, visited_query(j, i, prefix_ref[b], start_ref[0])

    def key_tile(b, g, j, i, prefix_ref, start_ref):
        _, end = key_bounds(start_ref[0], length, prefix_ref[b])
        return b, jnp.minimum(j, lax.div(end - 1, tile)), g

    def by_query_tile(b, g, j, i, prefix_ref, start_ref):
        # Written while the last keys are worked on; until then the first tile stays in place.
        return b, jnp.where(j == num_keys // tile - 1, i, 0), g

    def by_key_tile(b, g, j, i, prefix_ref, start_ref):
        return b, j, g

    queries = pl.BlockSpec((1, num_queries, LANES), query_tile)
    logsumexp = pl.BlockSpec((1, 1, heads, num_queries), group_tile)
    keys = pl.BlockSpec((1, tile, LANES), key_tile)
    by_keys = pl.BlockSpec((1, tile, LANES), by_key_tile)
    in_specs = [queries, queries, logsumexp, queries, keys, keys]
    if has_streams:
        in_specs.append(pl.BlockSpec((1, 1, 2 * heads, num_queries), group_tile))
    return pltpu.PrefetchScalarGridSpec(
        num_scalar_prefetch=2,
        grid=(batch, width // LANES, num_keys // tile, steps),
        in_specs=in_specs,
        out_specs=(pl.BlockSpec((1, num_queries, LANES), by_query_tile), by_keys, by_keys),
        scratch_shapes=[
            pltpu.VMEM((heads, length), jnp.float32),
            pltpu.VMEM((LANES, length), jnp.float32),
            pltpu.VMEM((LANES, tile), jnp.float32),
            pltpu.VMEM((LANES, tile), jnp.float32),
        ],
    )
