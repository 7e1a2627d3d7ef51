"""The backward kernel of the prefix attention."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from glm_jax.model.attention.flash_blocks import (
    LOG2_E,
    VISIBLE_SHARE,
    each_head,
    product,
    rows,
    visible,
)
from glm_jax.model.attention.flash_tiling import (
    LANES,
    Tiling,
    blocks_below,
    blocks_reaching,
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
    """

    query: Float[Array, "B L G*128"]
    context: Float[Array, "B L G*128"]
    logsumexp: Float[Array, "B G heads L"]
    gradient: Float[Array, "B L G*128"]

    def part(self, first: Int[Array, ""], length: int) -> Queries:
        """`length` of the queries, from `first` on."""

        def cut(array: Array, axis: int) -> Array:
            return lax.dynamic_slice_in_dim(array, first, length, axis)

        return Queries(
            cut(self.query, 1), cut(self.context, 1), cut(self.logsumexp, 3), cut(self.gradient, 1)
        )


Gradients = tuple[
    Float[Array, "B L G*128"],
    Float[Array, "B M G*128"],
    Float[Array, "B M G*128"],
]


def backward(
    queries: Queries,
    key: Float[Array, "B M G*128"],
    value: Float[Array, "B M G*128"],
    prefix_length: Int[Array, "B"],
    query_start: Int[Array, "1"],
    *,
    heads: int,
    scale: float,
    tiling: Tiling,
    interpret: bool,
) -> Gradients:
    """Gradients of query, key and value; the other arguments are those of the forward pass.

    Longer queries than a segment are done in several, the gradients of keys and values added up in
    float32.
    """
    run = functools.partial(_segment, heads=heads, scale=scale, tiling=tiling, interpret=interpret)
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
    key: Float[Array, "B M G*128"],
    value: Float[Array, "B M G*128"],
    prefix_length: Int[Array, "B"],
    query_start: Int[Array, "1"],
    *,
    heads: int,
    scale: float,
    tiling: Tiling,
    interpret: bool,
    sum_dtype: DTypeLike,
) -> Gradients:
    """The gradients of one segment of queries, those of keys and values in `sum_dtype`."""
    batch, length, width = queries.query.shape
    num_keys = key.shape[1]
    num_queries, tile = tiling.query_tile, tiling.key_tile
    steps = length // num_queries

    def visited_query(j, i, prefix, start):
        # Tiles of queries that see nothing of these keys are not fetched.
        first, _ = query_bounds(j * tile, tile, prefix)
        hidden = blocks_below(first, start, num_queries, steps - 1)
        return jnp.maximum(i, hidden)

    def query_tile(b, g, j, i, prefix_ref, start_ref):
        return b, visited_query(j, i, prefix_ref[b], start_ref[0]), g

    def logsumexp_tile(b, g, j, i, prefix_ref, start_ref):
        return b, g, 0, visited_query(j, i, prefix_ref[b], start_ref[0])

    def key_tile(b, g, j, i, prefix_ref, start_ref):
        _, end = key_bounds(start_ref[0], length, prefix_ref[b])
        return b, jnp.minimum(j, lax.div(end - 1, tile)), g

    def by_query_tile(b, g, j, i, prefix_ref, start_ref):
        # Written while the last keys are worked on; until then the first tile stays in place.
        return b, jnp.where(j == num_keys // tile - 1, i, 0), g

    def by_key_tile(b, g, j, i, prefix_ref, start_ref):
        return b, j, g

    tall, wide = (1, num_queries, LANES), (1, tile, LANES)
    products = 2 * batch * length * num_keys * width * VISIBLE_SHARE
    return pl.pallas_call(
        functools.partial(_kernel, heads=heads, scale=scale, tiling=tiling, interpret=interpret),
        out_shape=(
            jax.ShapeDtypeStruct(queries.query.shape, queries.query.dtype),
            jax.ShapeDtypeStruct(key.shape, sum_dtype),
            jax.ShapeDtypeStruct(value.shape, sum_dtype),
        ),
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=2,
            grid=(batch, width // LANES, num_keys // tile, steps),
            in_specs=[
                pl.BlockSpec(tall, query_tile),
                pl.BlockSpec(tall, query_tile),
                pl.BlockSpec((1, 1, heads, num_queries), logsumexp_tile),
                pl.BlockSpec(tall, query_tile),
                pl.BlockSpec(wide, key_tile),
                pl.BlockSpec(wide, key_tile),
            ],
            out_specs=(
                pl.BlockSpec(tall, by_query_tile),
                pl.BlockSpec(wide, by_key_tile),
                pl.BlockSpec(wide, by_key_tile),
            ),
            scratch_shapes=[
                pltpu.VMEM((heads, length), jnp.float32),
                pltpu.VMEM((LANES, length), jnp.float32),
                pltpu.VMEM((LANES, tile), jnp.float32),
                pltpu.VMEM((LANES, tile), jnp.float32),
            ],
        ),
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
    )(prefix_length, query_start, *queries, key, value)


def _kernel(
    prefix_ref: Any,  # [B]
    start_ref: Any,  # [1]
    query_ref: Any,  # [1, query tile, 128]
    context_ref: Any,  # [1, query tile, 128]
    logsumexp_ref: Any,  # [1, 1, heads, query tile]
    gradient_ref: Any,  # [1, query tile, 128]
    key_ref: Any,  # [1, key tile, 128]
    value_ref: Any,  # [1, key tile, 128]
    by_query_ref: Any,  # [1, query tile, 128]
    by_key_ref: Any,  # [1, key tile, 128]
    by_value_ref: Any,  # [1, key tile, 128]
    offset_ref: Any,  # [heads, segment], of each query's context with its gradient
    query_sum_ref: Any,  # [128, segment], heads below each other
    key_sum_ref: Any,  # [128, key tile]
    value_sum_ref: Any,  # [128, key tile]
    *,
    heads: int,
    scale: float,
    tiling: Tiling,
    interpret: bool,
) -> None:
    """One tile of queries on one tile of keys; scores stand as [keys, queries]."""
    query_block, key_block = tiling.query_block, tiling.key_block
    num_blocks, size = tiling.query_tile // query_block, LANES // heads
    multiply = functools.partial(product, interpret=interpret)
    prefix = prefix_ref[pl.program_id(0)]
    first_key = pl.program_id(2) * tiling.key_tile
    query_tile = pl.program_id(3)
    first_query = start_ref[0] + query_tile * tiling.query_tile
    tile_columns = rows(query_tile, tiling.query_tile)

    @pl.when(pl.program_id(2) == 0)
    def _():
        query_sum_ref[:, tile_columns] = jnp.zeros((LANES, tiling.query_tile), jnp.float32)
        parts = context_ref[0].astype(jnp.float32) * gradient_ref[0].astype(jnp.float32)
        parts = parts.T.reshape(heads, size, tiling.query_tile)
        offset_ref[:, tile_columns] = jnp.sum(parts, axis=1)

    @pl.when(pl.program_id(3) == 0)
    def _():
        key_sum_ref[...] = jnp.zeros(key_sum_ref.shape, jnp.float32)
        value_sum_ref[...] = jnp.zeros(value_sum_ref.shape, jnp.float32)

    def on_keys(j, _):
        lines = rows(j, key_block)
        keys, values = key_ref[0, lines, :], value_ref[0, lines, :]
        key_columns = keys.T  # [128, keys]
        first = first_key + j * key_block

        def on_queries(i, _, masked):
            part = rows(i, query_block)
            columns = rows(query_tile * num_blocks + i, query_block)
            queries, gradients = query_ref[0, part, :], gradient_ref[0, part, :]
            query_columns, gradient_columns = queries.T, gradients.T  # [128, queries]
            queries, gradients = each_head(queries, heads), each_head(gradients, heads)
            start = first_query + i * query_block
            shown = visible(first, start, prefix, tiling) if masked else None
            for head in range(heads):
                of_head = slice(head * size, (head + 1) * size)
                scores = multiply(keys, queries[head], 1, 1)
                logsumexp = logsumexp_ref[0, 0, head : head + 1, part]
                weights = jnp.exp2(scores * (scale * LOG2_E) - logsumexp)
                if shown is not None:
                    weights = jnp.where(shown, weights, 0.0)
                by_weights = multiply(values, gradients[head], 1, 1)
                by_scores = weights * (by_weights - offset_ref[head : head + 1, columns])
                by_scores = by_scores.astype(keys.dtype)
                weights = weights.astype(keys.dtype)
                value_sum_ref[of_head, lines] += multiply(gradient_columns[of_head], weights, 1, 1)
                key_sum_ref[of_head, lines] += multiply(query_columns[of_head], by_scores, 1, 1)
                query_sum_ref[of_head, columns] += multiply(key_columns[of_head], by_scores, 1, 0)

        some, every = query_bounds(first, key_block, prefix)
        begin = blocks_below(some, first_query, query_block, num_blocks)
        whole = blocks_reaching(every, first_query, query_block, num_blocks)
        lax.fori_loop(begin, whole, functools.partial(on_queries, masked=True), None)
        lax.fori_loop(whole, num_blocks, functools.partial(on_queries, masked=False), None)

    lax.fori_loop(0, tiling.key_tile // key_block, on_keys, None)

    @pl.when(pl.program_id(3) == pl.num_programs(3) - 1)
    def _():
        by_key_ref[0] = (key_sum_ref[...].T * scale).astype(by_key_ref.dtype)
        by_value_ref[0] = value_sum_ref[...].T.astype(by_value_ref.dtype)

    @pl.when(pl.program_id(2) == pl.num_programs(2) - 1)
    def _():
        by_query = query_sum_ref[:, tile_columns].T * scale
        by_query_ref[0] = by_query.astype(by_query_ref.dtype)
