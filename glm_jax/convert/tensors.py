"""The dtypes that weights are stored in."""

from __future__ import annotations

from collections.abc import Iterable

import ml_dtypes
import numpy as np

from glm_jax.errors import UsageError

DTYPES: dict[str, np.dtype] = {
    "float16": np.dtype(np.float16),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
    "float32": np.dtype(np.float32),
}
# What checkpoints may hold: quantized matrices too.
STORED_DTYPES: dict[str, np.dtype] = DTYPES | {"int8": np.dtype(np.int8)}


def widest(dtypes: Iterable[np.dtype]) -> np.dtype:
    """The dtype that holds the values of all given ones exactly."""
    different = set(dtypes)
    return different.pop() if len(different) == 1 else DTYPES["float32"]


# The unsigned integers of the same width, and the bits of the exponent: all of them are set in a
# NaN or an infinity and in nothing else. Much faster than np.isfinite, which converts half floats.
_EXPONENTS = {
    np.dtype(np.float16): (np.uint16, 0x7C00),
    np.dtype(ml_dtypes.bfloat16): (np.uint16, 0x7F80),
    np.dtype(np.float32): (np.uint32, 0x7F800000),
    np.dtype(np.float64): (np.uint64, 0x7FF0000000000000),
}
_CHUNK = 1 << 18


def require_finite(tensor: np.ndarray, name: str, where: str) -> None:
    """Checks that a C-contiguous tensor holds numbers only, as those of a quantized matrix do.

    Raises:
      UsageError: an element is NaN or infinite, or the dtype is neither floating nor int8.
    """
    if tensor.dtype == np.int8:
        return
    if tensor.dtype not in _EXPONENTS:
        raise UsageError(f"{name} in {where} has dtype {tensor.dtype}, but weights are floats")
    unsigned, bits = _EXPONENTS[tensor.dtype]
    flat = tensor.reshape(-1).view(unsigned)
    mask = unsigned(bits)
    for start in range(0, len(flat), _CHUNK):
        exponents = flat[start : start + _CHUNK] & mask
        if exponents.max() == mask:
            index = start + int(np.argmax(exponents))
            indices = [int(i) for i in np.unravel_index(index, tensor.shape)]
            raise UsageError(
                f"{name} in {where} has {tensor[tuple(indices)]} at {indices}, expected finite "
                "numbers"
            )


def same_bits(first: np.ndarray, second: np.ndarray) -> bool:
    """Whether two C-contiguous tensors of one shape and dtype agree in every bit."""
    return np.array_equal(first.reshape(-1).view(np.uint8), second.reshape(-1).view(np.uint8))


# Rows and columns copied at a time. What a block reads and writes then stays in the first cache,
# which is three to five times as fast as copying a transposed matrix of a 2-byte type at once.
ROWS, COLUMNS = 512, 16


def contiguous(array: np.ndarray) -> np.ndarray:
    """The same values in C order; the array itself where it has that order."""
    if array.flags.c_contiguous:
        return array
    copy = np.empty(array.shape, array.dtype)
    for row in range(0, array.shape[0], ROWS):
        rows, copied = array[row : row + ROWS], copy[row : row + ROWS]
        for column in range(0, array.shape[-1], COLUMNS):
            columns = (..., slice(column, column + COLUMNS))
            copied[columns] = rows[columns]
    return copy
