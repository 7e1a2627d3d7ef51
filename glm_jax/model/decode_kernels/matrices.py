"""Matrices as decoding has them in memory, in the blocks that kernels read.

Floating-point numbers are stored as [O, I], a row for each column of the result; integers as blocks
of 128 columns of the result, [O / 128, J, 128] (see `glm_jax.model.quantized_product`), where J is
I, or I / 2 with two numbers in a byte.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jaxtyping import Array, Float, Int8

from glm_jax.model.attention.flash_tiling import LANES

# Parts of the rows of a matrix of int4 numbers.
INT4_WAYS = 4
_INT4_SHIFT = 136.0


class Matrix(NamedTuple):
    """A linear map without its bias.

    Attributes:
      kernel: the numbers; more axes may come first.
      scale: of each column of the result, where the numbers are integers.
    """

    kernel: Float[Array, "... O I"] | Int8[Array, "... blocks J 128"]
    scale: Float[Array, "... O"] | None = None

    @property
    def is_quantized(self) -> bool:
        """Whether the numbers are integers."""
        return self.kernel.dtype == jnp.int8


def output_columns_spec(matrix: Matrix, columns: int, index: Callable[..., Any]) -> pl.BlockSpec:
    """Blocks of some columns of the result.

    Args:
      matrix: with one more axis in front, or none.
      columns: of a block.
      index: which block a step of the grid has.
    """
    shape = matrix.kernel.shape
    if matrix.is_quantized:
        front, block = shape[:-3], (columns // LANES, *shape[-2:])
    else:
        front, block = shape[:-2], (columns, shape[-1])
    before, after = (0,) * len(front), (0,) * (len(block) - 1)
    return pl.BlockSpec((*front, *block), lambda *step: (*before, index(*step), *after))


def input_columns_spec(
    matrix: Matrix, columns: int, per_byte: int, index: Callable[..., Any]
) -> pl.BlockSpec:
    """Blocks of some columns of the input; `per_byte` numbers are in a byte."""
    shape = matrix.kernel.shape
    if matrix.is_quantized:
        block = (shape[0], columns // per_byte, LANES)
        return pl.BlockSpec(block, lambda *step: (0, index(*step), 0))
    return pl.BlockSpec((shape[0], columns), lambda *step: (0, index(*step)))


def apart(values: Float[Array, "B I"], ways: int) -> Float[Array, "ways B J"]:
    """The columns in as many parts as products with a matrix take.

    A product with zeros and ones separates them exactly; it is as wide as the matrix units.
    """
    if ways == 1:
        return values[None]
    width = math.gcd(values.shape[1], ways * LANES)
    share = width // ways
    source, target = (lax.broadcasted_iota(jnp.int32, (width, width), axis) for axis in (0, 1))
    # Of four numbers in a row, the second comes first: it is in the lowest bits.
    chosen = source == ways * (target % share) + (target // share ^ 1)
    order = jnp.where(chosen, 1.0, 0.0).astype(values.dtype)
    separated = [
        product(values[:, first : first + width], order, 0)
        for first in range(0, values.shape[1], width)
    ]
    parts = [
        jnp.concatenate([one[:, way * share : (way + 1) * share] for one in separated], axis=1)
        for way in range(ways)
    ]
    return jnp.stack(parts).astype(values.dtype)


def columns_product(inputs: Float[Array, "ways B J"], kernel: Any) -> Float[Array, "B C"]:
    """Inputs times a block of `output_columns_spec`, before the scale.

    Args:
      inputs: of all columns, as `apart` gives them.
      kernel: reference to [C, I] or [C / 128, J, 128].
    """
    if kernel.dtype != jnp.int8:
        return product(inputs[0], kernel[...], 1)
    blocks = [_integer_product(inputs, kernel[block]) for block in range(kernel.shape[0])]
    return jnp.concatenate(blocks, axis=1) if len(blocks) > 1 else blocks[0]


def add_columns_product(total: Any, inputs: Float[Array, "ways B J"], kernel: Any) -> None:
    """Adds some columns' inputs times a block of `input_columns_spec` to a total, before the scale.

    Args:
      total: reference to [B, O].
      inputs: of these columns.
      kernel: reference to [O, C] or [O / 128, C / per_byte, 128].
    """
    if kernel.dtype != jnp.int8:
        total[...] += product(inputs[0], kernel[...], 1)
        return
    for block in range(kernel.shape[0]):
        columns = slice(block * LANES, (block + 1) * LANES)
        total[:, columns] += _integer_product(inputs, kernel[block])


def _integer_product(
    inputs: Float[Array, "ways B J"], stored: Int8[Array, "rows 128"]
) -> Float[Array, "B 128"]:
    if len(inputs) == 1:
        return product(inputs[0], stored.astype(inputs.dtype), 0)
    total = jnp.zeros((inputs.shape[1], LANES), jnp.float32)
    for one, part in zip(inputs, _int4_parts(stored), strict=True):
        if one.dtype != part.dtype:  # float32
            total += product(one, part.astype(one.dtype) - _INT4_SHIFT, 0)
            continue
        # Its rounding is that of float32 in sums 20 times as large: little next to bfloat16's.
        shift = _INT4_SHIFT * jnp.sum(one.astype(jnp.float32), axis=1, keepdims=True)
        total += product(one, part, 0) - shift
    return total


def _int4_parts(stored: Int8[Array, "J 128"]) -> list[Float[Array, "J/2 128"]]:
    """Every fourth number of bytes with two int4 numbers each, plus 136, for all four of them.

    The numbers become the last bits of bfloat16 numbers between 128 and 256, in 13 operations for
    eight of them where a conversion takes 34. Halves of a word are two rows of the result.
    """
    words = pltpu.bitcast(stored, jnp.int32) ^ jnp.int32(-0x77777778)  # adds 8 to all numbers
    exponents, mask = jnp.int32(0x43004300), jnp.int32(0x000F000F)
    return [
        pltpu.bitcast(
            (lax.shift_right_logical(words, jnp.int32(4 * part)) & mask) | exponents, jnp.bfloat16
        )
        for part in range(INT4_WAYS)
    ]


def product(
    left: Float[Array, "B I"], right: Float[Array, "..."], right_axis: int
) -> Float[Array, "B O"]:
    """Every row times a matrix, over its last axis and that axis of the matrix, in float32."""
    axes = (((1,), (right_axis,)), ((), ()))
    return lax.dot_general(left, right, axes, preferred_element_type=jnp.float32)
