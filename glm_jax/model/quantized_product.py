"""Products with matrices of int8 or packed int4 numbers.

On a CPU a matrix is expanded block by block: a block of floating-point numbers stays in the cache,
and only the integers come from memory, a quarter or an eighth of what float32 would be. Compilers
for accelerators expand operands of products themselves.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int8

from glm_jax.model.row_linear import FEW_ROWS, few_rows_product

# Of a block as floating-point numbers. On an EPYC with 1 MiB of second cache per core, blocks of 1
# to 4 MiB take the same time; at 16 MiB it is twice as long.
_BLOCK_BYTES = 2 << 20


def row_products(rows: Float[Array, "R I"], kernel: Int8[Array, "O J"]) -> Float[Array, "R O"]:
    """Every row times every row of a kernel, in the dtype of the rows.

    Args:
      rows: the inputs.
      kernel: J = I for int8, I / 2 for int4 with two columns in a byte: column 2 j in its high and
        column 2 j + 1 in its low four bits.
    """
    return jax.lax.platform_dependent(rows, kernel, cpu=_blocked, default=_products)


def unpack_int4(packed: Int8[Array, "..."]) -> tuple[Int8[Array, "..."], Int8[Array, "..."]]:
    """The numbers in the high and in the low four bits of every byte."""
    four = jnp.int8(4)
    return (
        jax.lax.shift_right_arithmetic(packed, four),
        jax.lax.shift_right_arithmetic(jax.lax.shift_left(packed, four), four),
    )


def _blocked(rows: Float[Array, "R I"], kernel: Int8[Array, "O J"]) -> Float[Array, "R O"]:
    size, width = kernel.shape
    blocks = num_blocks(size, rows.shape[1] * rows.dtype.itemsize)
    products = jax.lax.map(
        lambda block: _products(rows, block), kernel.reshape(blocks, size // blocks, width)
    )  # [blocks, R, O / blocks]
    return jnp.swapaxes(products, 0, 1).reshape(len(rows), size)


def _products(rows: Float[Array, "R I"], kernel: Int8[Array, "O J"]) -> Float[Array, "R O"]:
    if kernel.shape[1] == rows.shape[1]:
        return _product(rows, kernel)
    # The products of even and of odd columns: the numbers need not be interleaved.
    high, low = unpack_int4(kernel)
    return _product(rows[:, 0::2], high) + _product(rows[:, 1::2], low)


def _product(rows: Float[Array, "R I"], kernel: Int8[Array, "O I"]) -> Float[Array, "R O"]:
    kernel = kernel.astype(rows.dtype)
    if len(rows) < FEW_ROWS:
        return few_rows_product(rows, kernel).astype(rows.dtype)
    return jax.lax.dot_general(rows, kernel, (((1,), (1,)), ((), ())))


def num_blocks(size: int, bytes_per_row: int) -> int:
    """The smallest number of equal blocks of `size` rows that are small enough."""
    count = -(-size * bytes_per_row // _BLOCK_BYTES)
    return next(n for n in range(min(count, size), size + 1) if size % n == 0)
