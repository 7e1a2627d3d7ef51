"""Checks of single tensors, fast enough to be made on every one."""

from __future__ import annotations

import ml_dtypes
import numpy as np

from glm_jax.errors import UsageError

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
    """Checks that a C-contiguous tensor holds numbers only.

    Raises:
      UsageError: an element is NaN or infinite, or the dtype is not floating.
    """
    if tensor.dtype not in _EXPONENTS:
        raise UsageError(f"{name} in {where} has dtype {tensor.dtype}, but weights are floats")
    unsigned, bits = _EXPONENTS[tensor.dtype]
    flat = tensor.reshape(-1).view(unsigned)
    mask = unsigned(bits)
    for start in range(0, len(flat), _CHUNK):
        exponents = flat[start : start + _CHUNK] & mask
        if exponents.max() == mask:
            place = start + int(np.argmax(exponents))
            index = [int(i) for i in np.unravel_index(place, tensor.shape)]
            raise UsageError(
                f"{name} in {where} has {tensor[tuple(index)]} at {index}, expected finite numbers"
            )


def same_bits(first: np.ndarray, second: np.ndarray) -> bool:
    """Whether two C-contiguous tensors of one shape and dtype agree in every bit."""
    return np.array_equal(first.reshape(-1).view(np.uint8), second.reshape(-1).view(np.uint8))
