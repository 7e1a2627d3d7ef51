"""The first half of a block in one kernel: LayerNorm, projections, attention, output projection."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jaxtyping import Array, Float, Int

from glm_jax.model.decode_kernels.attention_kernel import WINDOW, AttentionRefs, attention_kernel
from glm_jax.model.decode_kernels.stream import Norm, Stream, core_spec, stream_specs
from glm_jax.model.decode_kernels.tiling import LANES, VMEM_LIMIT_BYTES, Shard
from glm_jax.model.paged_attention import MIN_QUERIES, LayerCache


class AttentionWeights(NamedTuple):
    """A device's part of a self-attention, without the bias of its result, and its LayerNorm."""

    norm: Norm
    projection: Float[Array, "3 W D"]
    projection_bias: Float[Array, "3 W"]
    output: Float[Array, "D W"]


class Slots(NamedTuple):
    """Which slots of a cache a step uses.

    Attributes:
      start: the slot of each example's new position; beyond the last one, it is not written.
      visible: not zero where the new position sees a slot; it sees itself in any case.
      num_slots: slots up to the last visible one.
    """

    start: Int[Array, "B"]
    visible: Int[Array, "B 1 M"]
    num_slots: Int[Array, ""]


def attention_half(
    stream: Stream,
    weights: AttentionWeights,
    cache: LayerCache,
    slots: Slots,
    shard: Shard,
    *,
    epsilon: float,
    update_dtype: Any,
    interpret: bool,
) -> tuple[Float[Array, "cores B D"], Float[Array, "cores B D"], LayerCache]:
    """As `mlp_half`, and the cache with the keys and values of the new position.

    Args:
      stream: the residual stream.
      weights: of this device.
      cache: of this layer, all slots in one page and all heads of the device in one row; it is
        updated in place.
      slots: see there.
      shard: sizes of the weights.
      epsilon: of the LayerNorm.
      update_dtype: of what is added.
      interpret: whether Pallas emulates the kernel instead of compiling it for a TPU.
    """
    _, batch, hidden = stream.base.shape
    shape, dtype = (shard.num_cores, batch, hidden), cache.key.dtype
    grid = _Grid(shard, batch, cache)
    # The cache is read in blocks, and written where it lies.
    anywhere = pl.BlockSpec(memory_space=pl.ANY)
    read = (weights.projection, weights.output, *cache)
    scores = batch * cache.num_slots * shard.attention_width
    base, update, key, value = pl.pallas_call(
        functools.partial(
            attention_kernel, head_size=shard.head_size, epsilon=epsilon, interpret=interpret
        ),
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=2,
            grid=grid.sizes,
            in_specs=grid.input_specs(len(stream.update)),
            out_specs=[core_spec(batch, hidden)] * 2 + [anywhere] * 2,
            scratch_shapes=grid.scratch(),
        ),
        out_shape=[
            jax.ShapeDtypeStruct(shape, dtype),
            jax.ShapeDtypeStruct(shape, update_dtype),
            jax.ShapeDtypeStruct(cache.key.shape, dtype),
            jax.ShapeDtypeStruct(cache.value.shape, dtype),
        ],
        input_output_aliases={
            AttentionRefs._fields.index("key"): 2,
            AttentionRefs._fields.index("value"): 3,
        },
        compiler_params=pltpu.CompilerParams(
            dimension_semantics=("parallel", *["arbitrary"] * 3), vmem_limit_bytes=VMEM_LIMIT_BYTES
        ),
        cost_estimate=pl.CostEstimate(
            flops=8 * batch * hidden * shard.attention_width + 4 * scores * grid.query_rows,
            transcendentals=scores // grid.columns * grid.query_rows,
            bytes_accessed=sum(array.nbytes for array in read),
        ),
        name="decode_attention",
        interpret=interpret,
    )(
        slots.start,
        pl.cdiv(slots.num_slots, grid.slots).astype(jnp.int32)[None],
        *stream,
        *weights.norm,
        *weights[1:],
        slots.visible,
        *cache,
    )
    return base, update, LayerCache(key, value)


class _Grid:
    """The steps of the kernel: cores, groups of heads, blocks of examples, parts of the slots."""

    def __init__(self, shard: Shard, batch_size: int, cache: LayerCache):
        assert shard.attention_columns is not None, "checked by Shard.is_tiled"
        self.columns, self.hidden = shard.attention_columns, shard.hidden_size
        self.batch, self.slots = batch_size, cache.slots_at_once
        self.rows = shard.rows_at_once(batch_size, self.slots)
        self.dtype = cache.key.dtype
        # A row for each head, and as many as the matrix units want.
        self.query_rows = max(MIN_QUERIES, self.columns // shard.head_size)
        self.groups = shard.attention_width // self.columns // shard.num_cores
        self.sizes = (
            shard.num_cores,
            self.groups,
            batch_size // self.rows,
            cache.num_slots // self.slots,
        )

    def input_specs(self, num_parts: int) -> list[pl.BlockSpec]:
        """Blocks of the inputs, in the order of `AttentionRefs`."""
        columns, hidden, groups = self.columns, self.hidden, self.groups

        def columns_at(core: Any, group: Any) -> Any:
            return core * groups + group

        def slots_at(part: Any, used: Any) -> Any:
            # What is not in use is not read: a block that stays the same is not copied again.
            return jnp.minimum(part, used[0] - 1)

        cache_spec = pl.BlockSpec(
            (1, self.rows, 1, self.slots, columns),
            lambda core, group, block, part, _, used: (
                0,
                block,
                0,
                slots_at(part, used),
                columns_at(core, group),
            ),
        )
        return [
            *stream_specs(num_parts, self.batch, hidden),
            pl.BlockSpec((3, columns, hidden), lambda c, g, *_: (0, columns_at(c, g), 0)),
            pl.BlockSpec((3, columns), lambda c, g, *_: (0, columns_at(c, g))),
            pl.BlockSpec((hidden, columns), lambda c, g, *_: (0, columns_at(c, g))),
            pl.BlockSpec(
                (self.rows, 1, self.slots),
                lambda core, group, block, part, _, used: (block, 0, slots_at(part, used)),
            ),
            cache_spec,
            cache_spec,
        ]

    def scratch(self) -> list[Any]:
        """Arrays that stay between steps, in the order of `AttentionRefs`."""
        one_number = (self.rows, self.query_rows, LANES)
        return [
            pltpu.VMEM((self.batch, self.hidden), self.dtype),
            pltpu.VMEM((self.batch, self.hidden), jnp.float32),
            pltpu.VMEM((self.batch, self.query_rows, self.columns), self.dtype),
            pltpu.VMEM((self.batch, 1, self.columns), jnp.float32),
            pltpu.VMEM((self.batch, 1, self.columns), jnp.float32),
            pltpu.VMEM((self.batch, 1, self.columns), jnp.float32),
            pltpu.VMEM(one_number, jnp.float32),
            pltpu.VMEM(one_number, jnp.float32),
            pltpu.VMEM((self.rows, self.query_rows, self.columns), jnp.float32),
            pltpu.VMEM((2, self.rows, WINDOW, self.columns), self.dtype),
            pltpu.SMEM((1,), jnp.int32),
            pltpu.SemaphoreType.DMA(()),
        ]
