"""The forward kernel of the prefix attention."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jaxtyping import Array, Float, Int

from glm_jax.model.attention.flash_blocks import (
    HIDDEN_SCORE,
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
)


def forward(
    query: Float[Array, "B L G*128"],
    key: Float[Array, "B M G*128"],
    value: Float[Array, "B M G*128"],
    prefix_length: Int[Array, "B"],
    query_start: Int[Array, "1"],
    *,
    heads: int,
    scale: float,
    tiling: Tiling,
    interpret: bool,
) -> tuple[Float[Array, "B L G*128"], Float[Array, "B G heads L"]]:
    """Context, and the logarithm (base 2) of each query's sum of exponentials.

    Args:
      query, key, value: G groups of heads, each 128 lanes wide.
      prefix_length: keys that every query of an example sees.
      query_start: position of the first query among the keys.
      heads: in a group of 128 lanes; they share it evenly.
      scale: factor of the scores.
      tiling: how the work is cut.
      interpret: whether Pallas emulates the kernel instead of compiling it for a TPU.
    """
    batch, length, width = query.shape
    num_keys, groups = key.shape[1], width // LANES
    num_queries, tile = tiling.query_tile, tiling.key_tile

    def query_tile(b, g, i, j, prefix_ref, start_ref):
        return b, i, g

    def key_tile(b, g, i, j, prefix_ref, start_ref):
        # A tile that is hidden from all queries is not fetched: the last one stays.
        first = start_ref[0] + i * num_queries
        _, end = key_bounds(first, num_queries, prefix_ref[b])
        return b, jnp.minimum(j, lax.div(end - 1, tile)), g

    products = 2 * batch * length * num_keys * width * VISIBLE_SHARE
    return pl.pallas_call(
        functools.partial(_kernel, heads=heads, scale=scale, tiling=tiling, interpret=interpret),
        out_shape=(
            jax.ShapeDtypeStruct(query.shape, query.dtype),
            jax.ShapeDtypeStruct((batch, groups, heads, length), jnp.float32),
        ),
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=2,
            grid=(batch, groups, length // num_queries, num_keys // tile),
            in_specs=[
                pl.BlockSpec((1, num_queries, LANES), query_tile),
                pl.BlockSpec((1, tile, LANES), key_tile),
                pl.BlockSpec((1, tile, LANES), key_tile),
            ],
            out_specs=(
                pl.BlockSpec((1, num_queries, LANES), query_tile),
                pl.BlockSpec((1, 1, heads, num_queries), lambda b, g, i, j, *_: (b, g, 0, i)),
            ),
            scratch_shapes=[
                pltpu.VMEM((heads, num_queries), jnp.float32),
                pltpu.VMEM((heads, num_queries), jnp.float32),
                pltpu.VMEM((LANES, num_queries), jnp.float32),
            ],
        ),
        compiler_params=pltpu.CompilerParams(
            dimension_semantics=("parallel", "parallel", "parallel", "arbitrary")
        ),
        cost_estimate=pl.CostEstimate(
            flops=int(2 * products),
            transcendentals=int(products // (2 * LANES) * heads),
            bytes_accessed=2 * (query.nbytes + key.nbytes),
        ),
        interpret=interpret,
        name="prefix_flash_forward",
    )(prefix_length, query_start, query, key, value)


def _kernel(
    prefix_ref: Any,  # [B]
    start_ref: Any,  # [1]
    query_ref: Any,  # [1, query tile, 128]
    key_ref: Any,  # [1, key tile, 128]
    value_ref: Any,  # [1, key tile, 128]
    context_ref: Any,  # [1, query tile, 128]
    logsumexp_ref: Any,  # [1, 1, heads, query tile]
    maximum_ref: Any,  # [heads, query tile], of the scores so far
    total_ref: Any,  # [heads, query tile], of their exponentials
    sum_ref: Any,  # [128, query tile], of the values weighted by them, heads below each other
    *,
    heads: int,
    scale: float,
    tiling: Tiling,
    interpret: bool,
) -> None:
    """One tile of queries on one tile of keys.

    Scores stand as [keys, queries]: the softmax then reduces over rows of registers, and what it
    gives for each query lies along the lanes. They stay unscaled; the scale is in the factor that
    turns the base of the exponentials from e to 2, so it costs nothing and rounds nothing.
    """
    query_block, key_block = tiling.query_block, tiling.key_block
    num_blocks, size = tiling.key_tile // key_block, LANES // heads
    factor = scale * LOG2_E
    multiply = functools.partial(product, interpret=interpret)
    prefix = prefix_ref[pl.program_id(0)]
    first_query = start_ref[0] + pl.program_id(2) * tiling.query_tile
    first_key = pl.program_id(3) * tiling.key_tile

    @pl.when(pl.program_id(3) == 0)
    def _():
        maximum_ref[...] = jnp.full(maximum_ref.shape, HIDDEN_SCORE)
        total_ref[...] = jnp.zeros(total_ref.shape, jnp.float32)
        sum_ref[...] = jnp.zeros(sum_ref.shape, jnp.float32)

    def on_queries(i, _):
        columns = rows(i, query_block)
        queries = each_head(query_ref[0, columns, :], heads)
        first = first_query + i * query_block

        def on_keys(j, _, masked):
            keys = key_ref[0, rows(j, key_block), :]
            values = value_ref[0, rows(j, key_block), :].T  # [128, keys]
            shown = visible(first_key + j * key_block, first, prefix, tiling) if masked else None
            scores = [multiply(keys, queries[head], 1, 1) for head in range(heads)]
            if shown is not None:
                scores = [jnp.where(shown, of_head, HIDDEN_SCORE) for of_head in scores]
            for head in range(heads):
                lines = slice(head * size, (head + 1) * size)
                before = maximum_ref[head : head + 1, columns]
                maximum = jnp.maximum(before, jnp.max(scores[head], axis=0, keepdims=True))
                weights = jnp.exp2((scores[head] - maximum) * factor)
                rest = jnp.exp2((before - maximum) * factor)
                total = jnp.sum(weights, axis=0, keepdims=True)
                maximum_ref[head : head + 1, columns] = maximum
                total_ref[head : head + 1, columns] = (
                    total_ref[head : head + 1, columns] * rest + total
                )
                sum_ref[lines, columns] = sum_ref[lines, columns] * rest + multiply(
                    values[lines], weights.astype(values.dtype), 1, 0
                )

        seen_by_all, seen = key_bounds(first, query_block, prefix)
        whole = blocks_below(seen_by_all, first_key, key_block, num_blocks)
        end = blocks_reaching(seen, first_key, key_block, num_blocks)
        lax.fori_loop(0, whole, functools.partial(on_keys, masked=False), None)
        lax.fori_loop(whole, end, functools.partial(on_keys, masked=True), None)

    lax.fori_loop(0, tiling.query_tile // query_block, on_queries, None)

    @pl.when(pl.program_id(3) == pl.num_programs(3) - 1)
    def _():
        for head in range(heads):
            lines = slice(head * size, (head + 1) * size)
            sum_ref[lines] = sum_ref[lines] / total_ref[head : head + 1]
        context_ref[0] = sum_ref[...].T.astype(context_ref.dtype)
        logsumexp_ref[0, 0] = maximum_ref[...] * factor + jnp.log2(total_ref[...])
