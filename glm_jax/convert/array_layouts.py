"""How the arrays of the original become ours, and back."""

from __future__ import annotations

import enum
from collections.abc import Sequence

import numpy as np


class Layout(enum.Enum):
    """How an original array becomes ours."""

    SAME = "the same array"
    MATRIX = "[out, in] -> [in, out]"
    FUSED_MATRIX = "[3 D, in] -> [in, 3, D]: query, key and value are thirds"
    FUSED_VECTOR = "[3 D] -> [3, D]"
    PAIRED_MATRIX = "[2 D, in] -> [in, 2, D]: key and value are halves"
    PAIRED_VECTOR = "[2 D] -> [2, D]"
    PAIRED_ROWS = "[P, 2 D] -> [P, 2, D]"

    @property
    def parts(self) -> int:
        """How many arrays are fused into one, along the axis of the output."""
        return {"FUSED": 3, "PAIRED": 2}.get(self.name.partition("_")[0], 1)


def to_native(layout: Layout, tensor: np.ndarray) -> np.ndarray:
    """An original array as one layer of ours; a view where that is possible."""
    match layout:
        case Layout.SAME:
            return tensor
        case Layout.MATRIX:
            return tensor.T
        case Layout.FUSED_MATRIX | Layout.PAIRED_MATRIX:
            return np.moveaxis(tensor.reshape(layout.parts, -1, tensor.shape[1]), 2, 0)
        case Layout.FUSED_VECTOR | Layout.PAIRED_VECTOR:
            return tensor.reshape(layout.parts, -1)
        case Layout.PAIRED_ROWS:
            return tensor.reshape(len(tensor), layout.parts, -1)


def to_original(layout: Layout, array: np.ndarray) -> np.ndarray:
    """One layer of ours as the original's array; the inverse of `to_native`."""
    match layout:
        case Layout.SAME:
            return array
        case Layout.MATRIX:
            return array.T
        case Layout.FUSED_MATRIX | Layout.PAIRED_MATRIX:
            return np.moveaxis(array, 0, 2).reshape(-1, array.shape[0])
        case Layout.FUSED_VECTOR | Layout.PAIRED_VECTOR:
            return array.reshape(-1)
        case Layout.PAIRED_ROWS:
            return array.reshape(len(array), -1)


def native_shape(layout: Layout, shape: Sequence[int]) -> tuple[int, ...]:
    """The shape of `to_native` of an array."""
    return to_native(layout, np.broadcast_to(np.int8(0), tuple(shape))).shape


def original_shape(layout: Layout, shape: Sequence[int]) -> tuple[int, ...] | None:
    """The shape of `to_original` of an array; None where it is not one of this layout."""
    axes = {
        Layout.MATRIX: 2,
        Layout.FUSED_MATRIX: 3,
        Layout.FUSED_VECTOR: 2,
        Layout.PAIRED_MATRIX: 3,
        Layout.PAIRED_VECTOR: 2,
        Layout.PAIRED_ROWS: 3,
    }.get(layout, max(len(shape), 1))
    if len(shape) != axes:
        return None
    *leading, columns = shape
    match layout:
        case Layout.SAME:
            return tuple(shape)
        case Layout.MATRIX:
            return columns, shape[0]
        case _ if leading[-1] != layout.parts:
            return None
        case Layout.FUSED_VECTOR | Layout.PAIRED_VECTOR:
            return (layout.parts * columns,)
        case Layout.PAIRED_ROWS:
            return shape[0], layout.parts * columns
    return layout.parts * columns, shape[0]
