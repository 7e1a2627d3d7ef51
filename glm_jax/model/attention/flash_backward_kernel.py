"""The kernel of the backward pass: the gradients of one tile of queries and one of keys."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jaxtyping import Array, Bool, Float, Int

from glm_jax.model.attention.flash_blocks import (
    LOG2_E,
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
    query_bounds,
)
from glm_jax.model.dropout import scale_kept


class _Refs(NamedTuple):
    """What the kernel reads, writes and accumulates, in the order in which Pallas passes it."""

    prefix: Any  # [B]
    start: Any  # [1]
    query: Any  # [1, query tile, 128]
    context: Any  # [1, query tile, 128]
    logsumexp: Any  # [1, 1, heads, query tile]
    gradient: Any  # [1, query tile, 128]
    key: Any  # [1, key tile, 128]
    value: Any  # [1, key tile, 128]
    streams: Any  # [1, 1, 2 heads, query tile], or None without dropout
    by_query: Any  # [1, query tile, 128]
    by_key: Any  # [1, key tile, 128]
    by_value: Any  # [1, key tile, 128]
    offset: Any  # [heads, segment], of each query's context with its gradient
    query_sum: Any  # [128, segment], heads below each other
    key_sum: Any  # [128, key tile]
    value_sum: Any  # [128, key tile]

    def initialize_queries(self, columns: Any, heads: int, num_queries: int) -> None:
        """Before the first keys: the offsets of a tile of queries, and their sums."""
        self.query_sum[:, columns] = jnp.zeros((LANES, num_queries), jnp.float32)
        parts = self.context[0].astype(jnp.float32) * self.gradient[0].astype(jnp.float32)
        parts = parts.T.reshape(heads, LANES // heads, num_queries)
        self.offset[:, columns] = jnp.sum(parts, axis=1)

    def initialize_keys(self) -> None:
        """Before the first queries of a tile of keys."""
        self.key_sum[...] = jnp.zeros(self.key_sum.shape, jnp.float32)
        self.value_sum[...] = jnp.zeros(self.value_sum.shape, jnp.float32)

    def finalize_keys(self, scale: float, kept_share: float) -> None:
        """After the last queries of a tile of keys."""
        self.by_key[0] = (self.key_sum[...].T * scale).astype(self.by_key.dtype)
        self.by_value[0] = (self.value_sum[...].T / kept_share).astype(self.by_value.dtype)


def kernel(
    *refs: Any, heads: int, scale: float, dropout_rate: float, tiling: Tiling, interpret: bool
) -> None:
    """One tile of queries on one tile of keys; scores are laid out as [keys, queries]."""
    tile = _Refs(*refs) if dropout_rate else _Refs._make((*refs[:8], None, *refs[8:]))
    query_block, key_block = tiling.query_block, tiling.key_block
    num_blocks = tiling.query_tile // query_block
    prefix = tile.prefix[pl.program_id(0)]
    first_key = pl.program_id(2) * tiling.key_tile
    query_tile = pl.program_id(3)
    first_query = tile.start[0] + query_tile * tiling.query_tile
    tile_columns = rows(query_tile, tiling.query_tile)
    add = functools.partial(
        _add_block,
        tile,
        heads=heads,
        scale=scale,
        dropout_rate=dropout_rate,
        multiply=functools.partial(product, interpret=interpret),
    )

    @pl.when(pl.program_id(2) == 0)
    def _():
        tile.initialize_queries(tile_columns, heads, tiling.query_tile)

    @pl.when(pl.program_id(3) == 0)
    def _():
        tile.initialize_keys()

    def on_keys(j, _):
        lines = rows(j, key_block)
        keys, values = tile.key[0, lines, :], tile.value[0, lines, :]
        key_columns = keys.T  # [128, keys]
        first = first_key + j * key_block

        def on_queries(i, _, masked):
            part = rows(i, query_block)
            columns = rows(query_tile * num_blocks + i, query_block)
            start = first_query + i * query_block
            shown = visible(first, start, prefix, tiling) if masked else None
            add(keys, values, key_columns, shown, first, lines, part, columns)

        some, every = query_bounds(first, key_block, prefix)
        masked_start = blocks_below(some, first_query, query_block, num_blocks)
        masked_end = blocks_reaching(every, first_query, query_block, num_blocks)
        lax.fori_loop(masked_start, masked_end, functools.partial(on_queries, masked=True), None)
        lax.fori_loop(masked_end, num_blocks, functools.partial(on_queries, masked=False), None)

    lax.fori_loop(0, tiling.key_tile // key_block, on_keys, None)

    @pl.when(pl.program_id(3) == pl.num_programs(3) - 1)
    def _():
        tile.finalize_keys(scale, 1.0 - dropout_rate)

    @pl.when(pl.program_id(2) == pl.num_programs(2) - 1)
    def _():
        by_query = tile.query_sum[:, tile_columns].T * scale
        tile.by_query[0] = by_query.astype(tile.by_query.dtype)


def _add_block(
    tile: _Refs,
    keys: Float[Array, "keys 128"],
    values: Float[Array, "keys 128"],
    key_columns: Float[Array, "128 keys"],
    shown: Bool[Array, "keys queries"] | None,
    first_key: Int[Array, ""],
    lines: Any,
    part: Any,
    columns: Any,
    *,
    heads: int,
    scale: float,
    dropout_rate: float,
    multiply: Any,
) -> None:
    """Adds what a block of queries (`part` of the tile) gives to the gradients of a block of keys
    (`lines` of the tile), and what these give to the gradient of the queries (`columns`).
    """
    queries, gradients = tile.query[0, part, :], tile.gradient[0, part, :]
    query_columns, gradient_columns = queries.T, gradients.T  # [128, queries]
    queries, gradients = each_head(queries, heads), each_head(gradients, heads)
    size = LANES // heads
    for head in range(heads):
        of_head = slice(head * size, (head + 1) * size)
        scores = multiply(keys, queries[head], 1, 1)
        logsumexp = tile.logsumexp[0, 0, head : head + 1, part]
        weights = jnp.exp2(scores * (scale * LOG2_E) - logsumexp)
        if shown is not None:
            weights = jnp.where(shown, weights, 0.0)
        by_weights = multiply(values, gradients[head], 1, 1)
        used = weights
        if dropout_rate:
            words = tile.streams[0, 0, :, part]
            kept = keep(dropout_rate, words, head, first_key, keys.shape[0])
            by_weights = scale_kept(dropout_rate, by_weights, kept)
            used = jnp.where(kept, weights, 0.0)  # scaled at the end
        by_scores = weights * (by_weights - tile.offset[head : head + 1, columns])
        by_scores = by_scores.astype(keys.dtype)
        tile.value_sum[of_head, lines] += multiply(
            gradient_columns[of_head], used.astype(keys.dtype), 1, 1
        )
        tile.key_sum[of_head, lines] += multiply(query_columns[of_head], by_scores, 1, 1)
        tile.query_sum[of_head, columns] += multiply(key_columns[of_head], by_scores, 1, 0)
