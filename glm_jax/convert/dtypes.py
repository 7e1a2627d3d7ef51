"""The dtypes that weights are stored in."""

from __future__ import annotations

from collections.abc import Iterable

import ml_dtypes
import numpy as np

DTYPES: dict[str, np.dtype] = {
    "float16": np.dtype(np.float16),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
    "float32": np.dtype(np.float32),
}


def widest(dtypes: Iterable[np.dtype]) -> np.dtype:
    """The dtype that holds the values of all given ones exactly."""
    different = set(dtypes)
    return different.pop() if len(different) == 1 else DTYPES["float32"]
