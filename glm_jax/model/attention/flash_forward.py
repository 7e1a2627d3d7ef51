"""The forward kernel of the prefix attention."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jaxtyping import Array, Bool, Float, Int, UInt32

from glm_jax.model.attention.flash_blocks import (
    HIDDEN_SCORE,
    LOG2_E,
    VISIBLE_SHARE,
    each_head,
    keep,
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
    query: Float[Array, "B L lanes"],
    key: Float[Array, "B M lanes"],
    value: Float[Array, "B M lanes"],
    prefix_length: Int[Array, "B"],
    query_start: Int[Array, "1"],
    streams: UInt32[Array, "B G words L"] | None,
    *,
    heads: int,
    scale: float,
    dropout_rate: float,
    tiling: Tiling,
    interpret: bool,
) -> tuple[Float[Array, "B L lanes"], Float[Array, "B G heads L"]]:
    """Context, and the logarithm (base 2) of each query's sum of exponentials.

    Args:
      query, key, value: G groups of heads, each 128 lanes wide: lanes = G x 128.
      prefix_length: keys that every query of an example sees.
      query_start: position of the first query among the keys.
      streams: of each query, for dropout: first words of the heads of a group, then second words.
      heads: in a group of 128 lanes; they share it evenly.
      scale: factor of the scores.
      dropout_rate: fraction of the probabilities that is dropped; 0 without streams.
      tiling: how the work is cut.
      interpret: whether Pallas emulates the kernel instead of compiling it for a TPU.
    """
    batch, length, width = query.shape
    num_keys, groups = key.shape[1], width // LANES
    products = 2 * batch * length * num_keys * width * VISIBLE_SHARE
    settings = {"heads": heads, "scale": scale, "dropout_rate": dropout_rate}
    arguments = [prefix_length, query_start, query, key, value]
    if streams is not None:
        arguments.append(streams)
    return pl.pallas_call(
        functools.partial(_kernel, **settings, tiling=tiling, interpret=interpret),
        out_shape=(
            jax.ShapeDtypeStruct(query.shape, query.dtype),
            jax.ShapeDtypeStruct((batch, groups, heads, length), jnp.float32),
        ),
        grid_spec=_grid(query.shape, num_keys, heads, tiling, streams is not None),
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
    )(*arguments)


def _grid(
    query_shape: tuple[int, ...], num_keys: int, heads: int, tiling: Tiling, has_streams: bool
) -> pltpu.PrefetchScalarGridSpec:
    """Examples, groups of heads, tiles of queries, tiles of keys; the last runs innermost."""
    batch, length, width = query_shape
    num_queries, tile = tiling.query_tile, tiling.key_tile

    def query_tile(b, g, i, j, prefix_ref, start_ref):
        return b, i, g

    def key_tile(b, g, i, j, prefix_ref, start_ref):
        # A tile that is hidden from all queries is not fetched: the last one stays.
        first = start_ref[0] + i * num_queries
        _, end = key_bounds(first, num_queries, prefix_ref[b])
        return b, jnp.minimum(j, lax.div(end - 1, tile)), g

    def queries_of_group(b, g, i, j, prefix_ref, start_ref):
        return b, g, 0, i

    in_specs = [
        pl.BlockSpec((1, num_queries, LANES), query_tile),
        pl.BlockSpec((1, tile, LANES), key_tile),
        pl.BlockSpec((1, tile, LANES), key_tile),
    ]
    if has_streams:
        in_specs.append(pl.BlockSpec((1, 1, 2 * heads, num_queries), queries_of_group))
    return pltpu.PrefetchScalarGridSpec(
        num_scalar_prefetch=2,
        grid=(batch, width // LANES, length // num_queries, num_keys // tile),
        in_specs=in_specs,
        out_specs=(
            pl.BlockSpec((1, num_queries, LANES), query_tile),
            pl.BlockSpec((1, 1, heads, num_queries), queries_of_group),
        ),
        scratch_shapes=[
            pltpu.VMEM((heads, num_queries), jnp.float32),
            pltpu.VMEM((heads, num_queries), jnp.float32),
            pltpu.VMEM((LANES, num_queries), jnp.float32),
        ],
    )


class _Refs(NamedTuple):
    """What the kernel reads, writes and accumulates, in the order in which Pallas passes it."""

    prefix: Any  # [B]
    start: Any  # [1]
    query: Any  # [1, query tile, 128]
    key: Any  # [1, key tile, 128]
    value: Any  # [1, key tile, 128]
    streams: Any  # [1, 1, 2 heads, query tile], or None without dropout
    context: Any  # [1, query tile, 128]
    logsumexp: Any  # [1, 1, heads, query tile]
    maximum: Any  # [heads, query tile], of the scores so far
    total: Any  # [heads, query tile], of their exponentials
    sum: Any  # [128, query tile], of the values weighted by them, heads below each other

    def initialize(self) -> None:
        """Before the first keys of a tile of queries."""
        self.maximum[...] = jnp.full(self.maximum.shape, HIDDEN_SCORE)
        self.total[...] = jnp.zeros(self.total.shape, jnp.float32)
        self.sum[...] = jnp.zeros(self.sum.shape, jnp.float32)

    def finalize(self, heads: int, factor: float, kept_share: float) -> None:
        """After the last keys: divides by the sums of exponentials, and writes the results."""
        size = LANES // heads
        for head in range(heads):
            lines = slice(head * size, (head + 1) * size)
            self.sum[lines] = self.sum[lines] / (self.total[head : head + 1] * kept_share)
        self.context[0] = self.sum[...].T.astype(self.context.dtype)
        self.logsumexp[0, 0] = self.maximum[...] * factor + jnp.log2(self.total[...])


def _kernel(
    *refs: Any, heads: int, scale: float, dropout_rate: float, tiling: Tiling, interpret: bool
) -> None:
    """One tile of queries on one tile of keys.

    Scores are laid out as [keys, queries]: the softmax then reduces over rows of registers, and its
    results for each query lie along the lanes. They stay unscaled; the scale is in the factor that
    turns the base of the exponentials from e to 2, so it costs nothing and rounds nothing.
    """
    tile = _Refs(*refs) if dropout_rate else _Refs._make((*refs[:5], None, *refs[5:]))
    query_block, key_block = tiling.query_block, tiling.key_block
    num_blocks, factor = tiling.key_tile // key_block, scale * LOG2_E
    multiply = functools.partial(product, interpret=interpret)
    add = functools.partial(_add_to_softmax, tile, heads=heads, factor=factor, multiply=multiply)
    prefix = tile.prefix[pl.program_id(0)]
    first_query = tile.start[0] + pl.program_id(2) * tiling.query_tile
    first_key = pl.program_id(3) * tiling.key_tile

    @pl.when(pl.program_id(3) == 0)
    def _():
        tile.initialize()

    def on_queries(i, _):
        columns = rows(i, query_block)
        queries = each_head(tile.query[0, columns, :], heads)
        first = first_query + i * query_block

        def on_keys(j, _, masked):
            keys = tile.key[0, rows(j, key_block), :]
            values = tile.value[0, rows(j, key_block), :].T  # [128, keys]
            shown = visible(first_key + j * key_block, first, prefix, tiling) if masked else None
            scores = [multiply(keys, queries[head], 1, 1) for head in range(heads)]
            if shown is not None:
                scores = [jnp.where(shown, of_head, HIDDEN_SCORE) for of_head in scores]
            for head in range(heads):
                kept = None
                if dropout_rate:
                    words = tile.streams[0, 0, :, columns]
                    kept = keep(dropout_rate, words, head, first_key + j * key_block, key_block)
                add(head, columns, scores[head], values, kept)

        seen_by_all, seen = key_bounds(first, query_block, prefix)
        unmasked_end = blocks_below(seen_by_all, first_key, key_block, num_blocks)
        end = blocks_reaching(seen, first_key, key_block, num_blocks)
        lax.fori_loop(0, unmasked_end, functools.partial(on_keys, masked=False), None)
        lax.fori_loop(unmasked_end, end, functools.partial(on_keys, masked=True), None)

    lax.fori_loop(0, tiling.query_tile // query_block, on_queries, None)

    @pl.when(pl.program_id(3) == pl.num_programs(3) - 1)
    def _():
        tile.finalize(heads, factor, 1.0 - dropout_rate)


def _add_to_softmax(
    tile: _Refs,
    head: int,
    columns: Any,
    scores: Float[Array, "keys queries"],
    values: Float[Array, "128 keys"],
    kept: Bool[Array, "keys queries"] | None,
    *,
    heads: int,
    factor: float,
    multiply: Any,
) -> None:
    """Adds one head's scores of a block of keys to the running softmax of a block of queries.

    Dropped weights count in the sum of exponentials, not in the sum of values; what is kept is
    scaled at the end.
    """
    lines = slice(head * LANES // heads, (head + 1) * LANES // heads)
    before = tile.maximum[head : head + 1, columns]
    maximum = jnp.maximum(before, jnp.max(scores, axis=0, keepdims=True))
    weights = jnp.exp2((scores - maximum) * factor)
    rest = jnp.exp2((before - maximum) * factor)
    total = jnp.sum(weights, axis=0, keepdims=True)
    if kept is not None:
        weights = jnp.where(kept, weights, 0.0)
    tile.maximum[head : head + 1, columns] = maximum
    tile.total[head : head + 1, columns] = tile.total[head : head + 1, columns] * rest + total
    tile.sum[lines, columns] = tile.sum[lines, columns] * rest + multiply(
        values[lines], weights.astype(values.dtype), 1, 0
    )
