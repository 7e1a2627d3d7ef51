"""What the kernel of the first half of a block does in one step.

A step has the weights of a group of heads and some slots of some examples. At a group's first step
it projects queries, keys and values of all examples; at its last step it adds the group's part to
the result. Scores and sums are float32, and the softmax is built up over the parts of the slots
(Milakov and Gimelshein, 2018, algorithm 3), the new position first.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jaxtyping import Array, Bool, Float, Int

from glm_jax.model.attention.xla import MASKED_SCORE
from glm_jax.model.decode_kernels.head_rotation import HeadRotation, rotated
from glm_jax.model.decode_kernels.matrices import (
    add_columns_product,
    apart,
    columns_product,
    product,
)
from glm_jax.model.decode_kernels.stream import HalfBlock, end_half, start_half

# Slots that are written together: a tile of the memory has 16 rows of bfloat16.
WINDOW = 16


class AttentionRefs(NamedTuple):
    """References of the kernel: scalars, inputs, outputs, and what stays between steps.

    Attributes:
      start: the slot of each new position, [B].
      used_parts: parts of the slots that are in use, [1].
      base, update, bias, norm_scale, norm_bias: the stream and the LayerNorm.
      projection, projection_bias, output: weights of the group of heads, C columns each.
      projection_scale, output_scale: of integers, or None.
      cosine, sine: [B, C], of a `HeadRotation`, or None.
      visible: [b, 1, S], of the block of examples and the part of the slots.
      key, value: [1, b, 1, S, C].
      base_out, update_out: results of this core.
      key_out, value_out: the cache in main memory, updated in place.
      inputs: [ways, B, D / ways], the normalised stream.
      total: [B, D], of the groups so far.
      queries: [B, R, C], a row for each head that is zero outside of it.
      new_key, new_value: [B, 1, C], of the new positions.
      context: [B, 1, C], what the group's heads have found.
      maximum, weight_sum: [b, R, 128], of the softmax so far; all lanes are equal.
      weighted: [b, R, C], the weighted sum of the values so far.
      windows: [2, b, 16, C], slots of keys and values that are being written.
      num_copies: [1], of those that are on their way.
      semaphore: counts what has arrived.
    """

    start: Any
    used_parts: Any
    base: Any
    norm_scale: Any
    norm_bias: Any
    projection: Any
    projection_bias: Any
    output: Any
    visible: Any
    key: Any
    value: Any
    base_out: Any
    update_out: Any
    key_out: Any
    value_out: Any
    inputs: Any
    total: Any
    queries: Any
    new_key: Any
    new_value: Any
    context: Any
    maximum: Any
    weight_sum: Any
    weighted: Any
    windows: Any
    num_copies: Any
    semaphore: Any
    update: Any = None
    bias: Any = None
    projection_scale: Any = None
    output_scale: Any = None
    cosine: Any = None
    sine: Any = None


RESULTS = ("base_out", "update_out", "key_out", "value_out")
SCRATCH = AttentionRefs._fields[
    AttentionRefs._fields.index("inputs") : AttentionRefs._fields.index("update")
]


class HeadShape(NamedTuple):
    """The form of a head.

    Attributes:
      size: K.
      rotation_distance: between two numbers that are rotated with each other; None without rotary
        positions.
    """

    size: int
    rotation_distance: int | None


def attention_kernel(*refs: Any, names: tuple[str, ...], head: HeadShape, half: HalfBlock) -> None:
    """One step of the grid: core, group of heads, block of examples, part of the slots."""
    r = AttentionRefs(**dict(zip(names, refs, strict=True)))
    group, block, part = (pl.program_id(axis) for axis in (1, 2, 3))
    last_group, last_block, last_part = (pl.num_programs(axis) - 1 for axis in (1, 2, 3))
    num_rows, columns = r.key.shape[1], r.windows.shape[3]
    column = pl.multiple_of((pl.program_id(0) * (last_group + 1) + group) * columns, columns)

    @pl.when((group == 0) & (block == 0) & (part == 0))
    def _() -> None:
        start_half(r, half)
        r.num_copies[0] = 0

    # The windows of the step before are needed again.
    _wait_for_copies(r)

    @pl.when((block == 0) & (part == 0))
    def _() -> None:
        _project(r, head)

    @pl.when(part < r.used_parts[0])
    def _() -> None:
        @pl.loop(0, num_rows)
        def _(index: Int[Array, ""]) -> None:
            row = block * num_rows + index

            @pl.when(part == 0)
            def _() -> None:
                _attend_to_itself(r, row, index)

            _attend(r, row, index, part)

            @pl.when(part == r.used_parts[0] - 1)
            def _() -> None:
                r.context[row] = _context(r, index, head.size)

            @pl.when(r.start[row] // r.key.shape[3] == part)
            def _() -> None:
                _start_writing(r, row, index, part, column)

    @pl.when((block == last_block) & (part == last_part))
    def _() -> None:
        context = r.context[...][:, 0].astype(r.inputs.dtype)
        add_columns_product(r.total, apart(context, len(r.inputs)), r.output)

    @pl.when((group == last_group) & (block == last_block) & (part == last_part))
    def _() -> None:
        end_half(r, r.output_scale)
        _wait_for_copies(r)


def _project(r: AttentionRefs, head: HeadShape) -> None:
    """Queries, keys and values of a group of heads, rounded as they are without the kernel."""
    inputs = r.inputs[...]

    def rounded(values: Float[Array, "B C"]) -> Float[Array, "B C"]:
        return values.astype(inputs.dtype).astype(jnp.float32)

    def projected(number: int) -> Float[Array, "B C"]:
        found = columns_product(inputs, r.projection.at[number])
        if r.projection_scale is not None:
            found = found * r.projection_scale[number].astype(jnp.float32)
        found = rounded(found + r.projection_bias[number].astype(jnp.float32))
        if head.rotation_distance is None or number == 2:
            return found
        rotation = HeadRotation(r.cosine[...], r.sine[...])
        return rounded(rotated(found, rotation, head.rotation_distance))

    query = projected(0) * head.size**-0.5
    own = _own_head(r.queries.shape, head.size)
    rows = jnp.broadcast_to(query[:, None], r.queries.shape)
    r.queries[...] = jnp.where(own, rows, 0.0).astype(r.queries.dtype)
    r.new_key[...] = projected(1)[:, None]
    r.new_value[...] = projected(2)[:, None]


def _own_head(shape: tuple[int, ...], head_size: int) -> Bool[Array, "..."]:
    """Which numbers of the row of each head are its own; rows beyond the heads have none."""
    row, column = (lax.broadcasted_iota(jnp.int32, shape, len(shape) - axis) for axis in (2, 1))
    return column // head_size == row


def _attend_to_itself(r: AttentionRefs, row: Int[Array, ""], index: Int[Array, ""]) -> None:
    """Starts the softmax of an example with its new position."""
    score = jnp.sum(r.queries[row].astype(jnp.float32) * r.new_key[row], axis=1, keepdims=True)
    r.maximum[index] = jnp.broadcast_to(score, r.maximum.shape[1:])
    r.weight_sum[index] = jnp.ones(r.weight_sum.shape[1:], jnp.float32)
    r.weighted[index] = jnp.broadcast_to(r.new_value[row], r.weighted.shape[1:])


def _attend(
    r: AttentionRefs, row: Int[Array, ""], index: Int[Array, ""], part: Int[Array, ""]
) -> None:
    """Adds a part of the slots to the softmax of an example."""
    slots = r.key.shape[3]
    scores = product(r.queries[row], r.key[0, index, 0], 1)  # [R, S]
    slot = part * slots + lax.broadcasted_iota(jnp.int32, (1, slots), 1)
    seen = (r.visible[index] != 0) & (slot != r.start[row])
    scores = jnp.where(seen, scores, MASKED_SCORE)
    before = r.maximum[index][:, :1]
    maximum = jnp.maximum(before, jnp.max(scores, axis=1, keepdims=True))
    weights, fading = jnp.exp(scores - maximum), jnp.exp(before - maximum)
    found = product(weights.astype(r.value.dtype), r.value[0, index, 0], 0)
    r.maximum[index] = jnp.broadcast_to(maximum, r.maximum.shape[1:])
    r.weight_sum[index] = r.weight_sum[index] * fading + jnp.sum(weights, axis=1, keepdims=True)
    r.weighted[index] = r.weighted[index] * fading + found


def _context(r: AttentionRefs, index: Int[Array, ""], head_size: int) -> Float[Array, "1 C"]:
    """What the heads of an example have found, each in its own numbers."""
    found = r.weighted[index] / r.weight_sum[index][:, :1]
    own = _own_head(found.shape, head_size)
    return jnp.sum(jnp.where(own, found, 0.0), axis=0, keepdims=True)


def _start_writing(
    r: AttentionRefs,
    row: Int[Array, ""],
    index: Int[Array, ""],
    part: Int[Array, ""],
    column: Int[Array, ""],
) -> None:
    """Writes the new key and value of an example, with the slots that share their tile."""
    slots = r.key.shape[3]
    inside = r.start[row] % slots
    first = pl.multiple_of(inside // WINDOW * WINDOW, WINDOW)
    at = lax.broadcasted_iota(jnp.int32, r.windows.shape[2:], 0) == inside - first
    target = pl.multiple_of(part * slots + first, WINDOW)
    for kind, (cache, new) in enumerate(((r.key, r.new_key), (r.value, r.new_value))):
        old = cache[0, index, 0, pl.ds(first, WINDOW)].astype(jnp.float32)
        r.windows[kind, index] = jnp.where(at, new[row], old).astype(r.windows.dtype)
        _window_copy(r, kind, index, (row, target, column)).start()
    r.num_copies[0] += 1


def _window_copy(
    r: AttentionRefs, kind: int, index: Int[Array, ""] | int, target: tuple[Any, Any, Any]
) -> Any:
    """The copy of a window into the cache; the target is an example, a slot and a column."""
    row, slot, column = target
    columns = r.windows.shape[3]
    cache = (r.key_out, r.value_out)[kind]
    return pltpu.make_async_copy(
        r.windows.at[kind, index],
        cache.at[0, row, 0, pl.ds(slot, WINDOW), pl.ds(column, columns)],
        r.semaphore,
    )


def _wait_for_copies(r: AttentionRefs) -> None:
    """Waits for all copies that are on their way, which are of the same size."""

    @pl.loop(0, r.num_copies[0])
    def _(_: Int[Array, ""]) -> None:
        for kind in range(2):
            _window_copy(r, kind, 0, (0, 0, 0)).wait()

    r.num_copies[0] = 0
