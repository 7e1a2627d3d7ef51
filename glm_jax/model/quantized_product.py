"""Products with matrices of int8 or packed int4 numbers, for decoding.

A matrix is stored as blocks of at most 128 columns, [..., J, L]: all rows of a block are next to
each other in memory. On a CPU, integers are converted where they are read, so that only they come
from memory, a quarter or an eighth of what float32 would be. Compilers for accelerators convert
operands of products themselves.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Int8, Num

from glm_jax.model.row_linear import for_matrix_units

# Columns of a block: the lanes of a TPU. CPUs are faster by a tenth with 64, and slower with 256.
_LANES = 128
# Terms of one element's sum in a loop over lanes, for int8 and for the bytes of int4. Fewer leave
# more partial sums in memory, with more the processor has too many rows to read ahead.
_TERMS = {1: 32, 2: 8}
# Parts of the columns, whose partial sums stay in the cache.
_PARTS = 4
# Of a tile that is converted for a product with several rows. Smaller and larger ones, and other
# shapes, take two to eight times as long on an EPYC with 1 MiB of second cache per core.
_TILE_ROWS, _TILE_COLUMNS = 4096, 256


def column_blocks(kernel: Int8[Array, "J *F O"]) -> Int8[Array, "*F B J L"]:
    """A kernel as `row_products` takes it: B blocks of L columns."""
    blocks = kernel.reshape(*kernel.shape[:-1], -1, num_lanes(kernel.shape[-1]))
    return jnp.moveaxis(blocks, 0, -2)


def num_lanes(num_columns: int) -> int:
    """Columns of a block."""
    return _largest_divisor(num_columns, _LANES)


def row_products(
    rows: Float[Array, "R I"], kernel: Int8[Array, "*F B J L"]
) -> Float[Array, "R *F O"]:
    """Every row times a kernel of O = B L columns, in the dtype of the rows.

    Args:
      rows: the inputs.
      kernel: J = I for int8, I / 2 for int4 with two rows in a byte: row 2 j in its high and row
        2 j + 1 in its low four bits.
    """
    products = jax.lax.platform_dependent(rows, kernel, cpu=_on_cpu, tpu=_on_tpu, default=_products)
    return products.reshape(len(rows), *kernel.shape[:-3], -1).astype(rows.dtype)


def unpack_int4(packed: Int8[Array, "..."]) -> tuple[Int8[Array, "..."], Int8[Array, "..."]]:
    """The numbers in the high and in the low four bits of every byte."""
    four = jnp.int8(4)
    return (
        jax.lax.shift_right_arithmetic(packed, four),
        jax.lax.shift_right_arithmetic(jax.lax.shift_left(packed, four), four),
    )


def _products(
    rows: Float[Array, "R I"], kernel: Int8[Array, "*F B J L"]
) -> Float[Array, "R *F B L"]:
    def product(rows: Float[Array, "R J"], numbers: Int8[Array, "*F B J L"]):
        floats = numbers.astype(rows.dtype)
        return jnp.einsum("rj,...jl->r...l", rows, floats, preferred_element_type=jnp.float32)

    size = kernel.shape[-2]
    per_byte = rows.shape[1] // size
    # The products of even and of odd rows: the numbers need not be interleaved.
    return _sum(
        [
            product(rows[:, part::per_byte], numbers)
            for part, numbers in enumerate(_numbers(kernel, per_byte))
        ]
    )


def _on_tpu(rows: Float[Array, "R I"], kernel: Int8[Array, "*F B J L"]) -> Float[Array, "R *F B L"]:
    return for_matrix_units(_products, rows, kernel)


def _on_cpu(rows: Float[Array, "R I"], kernel: Int8[Array, "*F B J L"]) -> Float[Array, "R *F B L"]:
    blocks = kernel.reshape(-1, *kernel.shape[-2:])
    products = _vector_product(rows[0], blocks) if len(rows) == 1 else _tiled(rows, blocks)
    return products.reshape(len(rows), *kernel.shape[:-2], kernel.shape[-1])


def _vector_product(vector: Float[Array, "I"], blocks: Int8[Array, "B J L"]) -> Float[Array, "B L"]:
    """One row's products, as sums that the compiler makes vector loops over lanes of.

    A product or a reduction would be a loop over rows, which is not reordered into vectors.
    """
    count, size, lanes = blocks.shape
    per_byte = len(vector) // size
    num_terms = _largest_divisor(size, _TERMS[per_byte])
    groups = blocks.reshape(count, size // num_terms, num_terms, lanes)
    factors = vector.astype(jnp.float32).reshape(size // num_terms, num_terms, per_byte)
    if per_byte == 2:
        # What `_shifted` leaves out; powers of two change no digit.
        factors = factors * jnp.asarray([2.0**-4, 2.0**-28], jnp.float32)
    # The loop makes sure that the factors are in memory: the compiler would compute what they are
    # made from again for every block.
    num_parts = _largest_divisor(count, _PARTS)
    part_shape = (count // num_parts, size // num_terms, 1, lanes)

    def of_part(part: Int[Array, ""]) -> Float[Array, "W L"]:
        terms = []
        for term in range(num_terms):
            start = (part * part_shape[0], 0, term, 0)
            stored = jax.lax.dynamic_slice(groups, start, part_shape)[:, :, 0]
            for i, numbers in enumerate(_shifted(stored, per_byte)):
                terms.append(numbers.astype(jnp.float32) * factors[:, term, i, None])
        return _tree_sum(_sum(terms))

    return jax.lax.map(of_part, jnp.arange(num_parts)).reshape(count, lanes)


def _tree_sum(values: Float[Array, "B K L"]) -> Float[Array, "B L"]:
    """The sum over the middle axis, at most 16 terms at a time."""
    while values.shape[1] > 1:
        count, size, lanes = values.shape
        num_terms = _largest_divisor(size, 16)
        num_terms = size if num_terms == 1 else num_terms
        groups = values.reshape(count, size // num_terms, num_terms, lanes)
        values = _sum([groups[:, :, term] for term in range(num_terms)])
    return values[:, 0]


def _tiled(rows: Float[Array, "R I"], blocks: Int8[Array, "B J L"]) -> Float[Array, "R B L"]:
    """Several rows' products, with one tile of floats after another."""
    count, size, lanes = blocks.shape
    per_byte = rows.shape[1] // size
    width = _largest_divisor(count, max(_TILE_COLUMNS // lanes, 1))
    height = _largest_divisor(size, _TILE_ROWS // per_byte)
    inputs = rows.reshape(len(rows), size // height, height, per_byte)

    def product(rows: Float[Array, "R H"], numbers: Int8[Array, "W H L"]):
        matrix = jnp.moveaxis(numbers, 0, 1).reshape(height, width * lanes).astype(rows.dtype)
        return jnp.matmul(rows, matrix, preferred_element_type=jnp.float32)

    def columns_product(columns: Int8[Array, "W C H L"]) -> Float[Array, "R X"]:
        tiles = [columns[:, i] for i in range(size // height)]
        return _sum(
            [
                product(inputs[:, i, :, part], numbers)
                for i, tile in enumerate(tiles)
                for part, numbers in enumerate(_numbers(tile, per_byte))
            ]
        )

    tiles = blocks.reshape(count // width, width, size // height, height, lanes)
    products = jax.lax.map(columns_product, tiles)  # [B / width, R, width L]
    return jnp.swapaxes(products, 0, 1).reshape(len(rows), count, lanes)


def _numbers(stored: Int8[Array, "..."], per_byte: int) -> Sequence[Int8[Array, "..."]]:
    """The numbers that bytes hold, of every position in a byte."""
    return (stored,) if per_byte == 1 else unpack_int4(stored)


def _shifted(stored: Int8[Array, "..."], per_byte: int) -> Sequence[Num[Array, "..."]]:
    """`_numbers`, but of int4 times 2^4 and 2^28, which takes half the operations."""
    if per_byte == 1:
        return (stored,)
    wide = stored.astype(jnp.int32)
    return wide & -16, jax.lax.shift_left(wide, jnp.int32(28))


def _sum(terms: Sequence[Float[Array, "..."]]) -> Float[Array, "..."]:
    return functools.reduce(operator.add, terms)


def _largest_divisor(size: int, limit: int) -> int:
    """The largest divisor that is not above the limit."""
    return next(divisor for divisor in range(min(size, limit), 0, -1) if size % divisor == 0)
