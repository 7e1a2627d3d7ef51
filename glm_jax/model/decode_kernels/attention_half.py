"""The first half of a block in one kernel: LayerNorm, projections, attention, output projection."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jaxtyping import Array, Float, Int

from glm_jax.model.attention.flash_tiling import LANES
from glm_jax.model.decode_kernels.attention_kernel import (
    RESULTS,
    SCRATCH,
    WINDOW,
    HeadShape,
    attention_kernel,
)
from glm_jax.model.decode_kernels.head_rotation import head_rotation
from glm_jax.model.decode_kernels.matrices import (
    Matrix,
    input_columns_spec,
    output_columns_spec,
)
from glm_jax.model.decode_kernels.stream import (
    HalfBlock,
    Inputs,
    Norm,
    Stream,
    core_spec,
    stream_inputs,
)
from glm_jax.model.decode_kernels.tiling import VMEM_LIMIT_BYTES, Shard
from glm_jax.model.paged_attention import MIN_QUERIES, LayerCache
from glm_jax.model.rotary import Rotation


class AttentionWeights(NamedTuple):
    """A device's part of a self-attention, without the bias of its result, and its LayerNorm."""

    norm: Norm
    projection: Matrix  # [3, W, D]
    projection_bias: Float[Array, "3 W"]
    output: Matrix  # [D, W]


class Slots(NamedTuple):
    """Which slots of a cache a step uses.

    Attributes:
      start: the slot of each example's new position; beyond the last one, it is not written.
      visible: not zero where the new position sees a slot; it sees itself in any case.
      num_slots: slots up to the last visible one.
      rotation: of queries and keys, if any.
    """

    start: Int[Array, "B"]
    visible: Int[Array, "B 1 M"]
    num_slots: Int[Array, ""]
    rotation: Rotation | None = None


def attention_half(
    stream: Stream,
    weights: AttentionWeights,
    cache: LayerCache,
    slots: Slots,
    shard: Shard,
    half: HalfBlock,
) -> tuple[Float[Array, "cores B D"], Float[Array, "cores B D"], LayerCache]:
    """As `mlp_half`, and the cache with the keys and values of the new position.

    Args:
      stream: the residual stream.
      weights: of this device.
      cache: of this layer, all slots in one page and all heads of the device in one row; it is
        updated in place.
      slots: see there.
      shard: sizes of the weights.
      half: how the half block computes.
    """
    _, batch, hidden = stream.base.shape
    shape, dtype = (shard.num_cores, batch, hidden), cache.key.dtype
    grid = AttentionGrid(shard, batch, cache)
    used_parts = pl.cdiv(slots.num_slots, grid.slots).astype(jnp.int32)[None]
    inputs = _inputs(stream, weights, cache, slots, grid)
    prefetched = ("start", "used_parts")
    names = (*prefetched, *inputs, *RESULTS, *SCRATCH)
    aliases = {name: len(prefetched) + list(inputs).index(name) for name in ("key", "value")}
    distance = None if slots.rotation is None else slots.rotation.cosine.shape[-1]
    head = HeadShape(shard.head_size, distance)
    anywhere = pl.BlockSpec(memory_space=pl.ANY)
    base, update, key, value = pl.pallas_call(
        functools.partial(attention_kernel, names=names, head=head, half=half),
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=len(prefetched),
            grid=grid.sizes,
            in_specs=[spec for _, spec in inputs.values()],
            # The cache is read in blocks, and written in place.
            out_specs=[core_spec(batch, hidden)] * 2 + [anywhere] * 2,
            scratch_shapes=grid.scratch(),
        ),
        out_shape=[
            jax.ShapeDtypeStruct(shape, dtype),
            jax.ShapeDtypeStruct(shape, half.update_dtype),
            *(jax.ShapeDtypeStruct(array.shape, dtype) for array in cache),
        ],
        input_output_aliases={aliases["key"]: 2, aliases["value"]: 3},
        compiler_params=pltpu.CompilerParams(
            dimension_semantics=("parallel", "arbitrary", "arbitrary", "arbitrary"),
            vmem_limit_bytes=VMEM_LIMIT_BYTES,
        ),
        cost_estimate=_cost(weights, cache, shard, grid),
        name="decode_attention",
        interpret=half.interpret,
    )(slots.start, used_parts, *(array for array, _ in inputs.values()))
    return base, update, LayerCache(key, value)


def _cost(
    weights: AttentionWeights, cache: LayerCache, shard: Shard, grid: AttentionGrid
) -> pl.CostEstimate:
    """What the kernel computes and reads: full caches, and a row of queries for each head."""
    read = (weights.projection.kernel, weights.output.kernel, *cache)
    scores = grid.batch * cache.num_slots * shard.attention_width * grid.query_rows
    return pl.CostEstimate(
        flops=8 * grid.batch * shard.hidden_size * shard.attention_width + 4 * scores,
        transcendentals=scores // grid.columns,
        bytes_accessed=sum(array.nbytes for array in read),
    )


def _inputs(
    stream: Stream,
    weights: AttentionWeights,
    cache: LayerCache,
    slots: Slots,
    grid: AttentionGrid,
) -> Inputs:
    """The inputs of the kernel and their blocks; scalars come before them."""
    columns, group = grid.columns, grid.group
    _, projection, bias, output = weights
    of_group = pl.BlockSpec((3, columns), lambda *step: (0, group(*step)))
    inputs = stream_inputs(stream, weights.norm) | {
        "projection": (projection.kernel, output_columns_spec(projection, columns, group)),
        "projection_bias": (bias, of_group),
        "output": (output.kernel, input_columns_spec(output, columns, grid.per_byte, group)),
        "visible": (
            slots.visible,
            pl.BlockSpec(
                (grid.rows, 1, grid.slots),
                lambda *step: (step[2], 0, grid.part(*step)),
            ),
        ),
        "key": (cache.key, grid.cache_spec()),
        "value": (cache.value, grid.cache_spec()),
    }
    if projection.scale is not None and output.scale is not None:
        inputs["projection_scale"] = (projection.scale, of_group)
        inputs["output_scale"] = (output.scale, pl.BlockSpec(output.scale.shape, lambda *_: (0,)))
    if slots.rotation is not None:
        for name, rows in head_rotation(slots.rotation, columns)._asdict().items():
            inputs[name] = (rows, pl.BlockSpec(rows.shape, lambda *_: (0, 0)))
    return inputs


class AttentionGrid:
    """The steps of the kernel: cores, groups of heads, blocks of examples, parts of the slots."""

    def __init__(self, shard: Shard, batch_size: int, cache: LayerCache):
        assert shard.attention_columns is not None, "checked by Shard.is_tiled"
        self.columns, self.hidden = shard.attention_columns, shard.hidden_size
        self.per_byte, self.ways = shard.per_byte, shard.ways
        self.batch, self.slots = batch_size, cache.slots_at_once
        self.rows = shard.rows_at_once(batch_size, self.slots)
        self.dtype = cache.key.dtype
        # A row for each head, and at least as many as the matrix units fill a tile with.
        self.query_rows = max(MIN_QUERIES, self.columns // shard.head_size)
        self.groups = shard.attention_width // self.columns // shard.num_cores
        self.sizes = (
            shard.num_cores,
            self.groups,
            batch_size // self.rows,
            cache.num_slots // self.slots,
        )

    def group(self, *step: Any) -> Any:
        """The group of heads that a step works on, among those of all cores."""
        core, group, *_ = step
        return core * self.groups + group

    def part(self, *step: Any) -> Any:
        """The part of the slots that a step reads: what is not in use stays unread.

        A block that is that of the step before is not copied again.
        """
        *_, part, _, used_parts = step
        return jnp.minimum(part, used_parts[0] - 1)

    def cache_spec(self) -> pl.BlockSpec:
        """Blocks of keys, or of values."""
        shape = (1, self.rows, 1, self.slots, self.columns)
        return pl.BlockSpec(
            shape, lambda *step: (0, step[2], 0, self.part(*step), self.group(*step))
        )

    def scratch(self) -> list[Any]:
        """Arrays that stay between steps, in the order of `SCRATCH`."""
        new = pltpu.VMEM((self.batch, 1, self.columns), jnp.float32)
        per_row = (self.rows, self.query_rows)
        of_softmax = pltpu.VMEM((*per_row, LANES), jnp.float32)
        return [
            pltpu.VMEM((self.ways, self.batch, self.hidden // self.ways), self.dtype),
            pltpu.VMEM((self.batch, self.hidden), jnp.float32),
            pltpu.VMEM((self.batch, self.query_rows, self.columns), self.dtype),
            new,
            new,
            new,
            of_softmax,
            of_softmax,
            pltpu.VMEM((*per_row, self.columns), jnp.float32),
            pltpu.VMEM((2, self.rows, WINDOW, self.columns), self.dtype),
            pltpu.SMEM((1,), jnp.int32),
            pltpu.SemaphoreType.DMA(()),
        ]
