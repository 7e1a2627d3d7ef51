"""Quantizing matrices by rows, and expanding quantized ones, tensor by tensor.

A row of a matrix becomes integers and one scale: its largest absolute value / 127 (int8) or / 7
(int4). An integer is the element / the scale as it is stored, rounded half to even.

Source: ChatGLM-6B's quantization.py, whose int8 and int4 files these are.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import numpy as np
from jaxtyping import Float, Int8

from glm_jax.convert.dimensions import QUANTIZED_MATRICES, WORD_EMBEDDING, measure
from glm_jax.convert.names import SCALE
from glm_jax.convert.weights import TensorInfo, WeightSource
from glm_jax.errors import UsageError

BITS = {"int8": 8, "int4": 4}
# Rows at a time, so that float32 copies stay small.
_ROWS = 1024


def quantize_rows(
    matrix: Float[np.ndarray, "O I"], bits: int
) -> tuple[Int8[np.ndarray, "O J"], Float[np.ndarray, "O"]]:
    """The integers of a matrix and the scales of its rows.

    Scales of float16 are float16, and so are the quotients then; all others are float32.
    """
    dtype = matrix.dtype if matrix.dtype == np.float16 else np.dtype(np.float32)
    levels = dtype.type(2 ** (bits - 1) - 1)
    scales = np.empty(len(matrix), dtype)
    width = matrix.shape[1] * bits // 8
    integers = np.empty((len(matrix), width), np.int8)
    for start in range(0, len(matrix), _ROWS):
        rows = slice(start, start + _ROWS)
        part = matrix[rows].astype(dtype)
        scale = np.abs(part).max(axis=1) / levels
        divisor = np.where(scale > 0, scale, dtype.type(1))[:, None]
        quotient = np.rint(part / divisor).astype(np.int8)
        integers[rows] = pack_int4(quotient) if bits == 4 else quotient
        scales[rows] = scale
    return integers, scales


def expand_rows(
    integers: Int8[np.ndarray, "O J"],
    scales: Float[np.ndarray, "O"],
    bits: int,
    dtype: np.dtype,
) -> Float[np.ndarray, "O I"]:
    """The matrix: integers times scales, in float32, rounded to `dtype`."""
    matrix = np.empty((len(integers), integers.shape[1] * 8 // bits), dtype)
    for start in range(0, len(integers), _ROWS):
        rows = slice(start, start + _ROWS)
        part = unpack_int4(integers[rows]) if bits == 4 else integers[rows]
        matrix[rows] = part.astype(np.float32) * scales[rows, None].astype(np.float32)
    return matrix


def pack_int4(integers: Int8[np.ndarray, "O I"]) -> Int8[np.ndarray, "O J"]:
    """Two columns in one byte: the even one in its high four bits."""
    numbers = integers.view(np.uint8)
    return ((numbers[:, 0::2] << 4) | (numbers[:, 1::2] & 15)).view(np.int8)


def unpack_int4(packed: Int8[np.ndarray, "O J"]) -> Int8[np.ndarray, "O I"]:
    """The inverse of `pack_int4`."""
    integers = np.empty((len(packed), 2 * packed.shape[1]), np.int8)
    integers[:, 0::2] = packed >> 4
    integers[:, 1::2] = (packed << 4) >> 4
    return integers


def scale_name(matrix: str) -> str:
    """The name of a quantized matrix's scales."""
    return matrix.removesuffix("weight") + SCALE


class _Wrapped:
    """A source whose matrices come in another form."""

    tensors: Mapping[str, TensorInfo]

    def __init__(self, source: WeightSource) -> None:
        self.path, self.kind = source.path, source.kind
        self.metadata, self.extra = source.metadata, source.extra
        self._source = source

    def __enter__(self) -> _Wrapped:
        return self

    def __exit__(self, *_error: object) -> None: ...

    def read(self, name: str) -> np.ndarray:
        """One tensor."""
        raise NotImplementedError

    def where(self, name: str) -> str:
        """The file or files that hold a tensor, or what it is made of."""
        own = name if name in self._source.tensors else name.removesuffix(SCALE) + "weight"
        return self._source.where(own)


class QuantizedSource(_Wrapped):
    """A source with the matrices of its layers quantized."""

    def __init__(self, source: WeightSource, quantization: str) -> None:
        """Works out the new tensors.

        Raises:
          UsageError: the source is quantized already, or int4 can't pair its columns.
        """
        super().__init__(source)
        self._bits = BITS[quantization]
        self._last: tuple[str, np.ndarray] | None = None
        tensors: dict[str, TensorInfo] = {}
        for name in self.order(source.tensors):
            matrix = name.removesuffix(SCALE) + "weight" if name not in source.tensors else name
            info = source.tensors[matrix]
            tensors[name] = info
            if name.endswith(QUANTIZED_MATRICES):
                self._check(name, info)
                columns = info.shape[1] * self._bits // 8
                tensors[name] = TensorInfo((info.shape[0], columns), np.dtype(np.int8))
            elif name != matrix:
                half = info.dtype == np.float16
                dtype = info.dtype if half else np.dtype(np.float32)
                tensors[name] = TensorInfo(info.shape[:1], dtype)
        self.tensors = tensors

    def order(self, names: Iterable[str]) -> list[str]:
        """Names of the source, each quantized matrix with its scales behind it."""

        def both() -> Iterator[str]:
            for name in names:
                yield name
                if name.endswith(QUANTIZED_MATRICES):
                    yield scale_name(name)

        return list(both())

    def read(self, name: str) -> np.ndarray:
        """One tensor."""
        is_scale = name not in self._source.tensors
        matrix = name.removesuffix(SCALE) + "weight" if is_scale else name
        if not matrix.endswith(QUANTIZED_MATRICES):
            return self._source.read(name)
        if is_scale and self._last is not None and self._last[0] == matrix:
            return self._last[1]
        integers, scales = quantize_rows(self._source.read(matrix), self._bits)
        self._last = matrix, scales
        return scales if is_scale else integers

    def _check(self, name: str, info: TensorInfo) -> None:
        if info.dtype == np.int8:
            raise UsageError(
                f"{name} in {self._source.where(name)} is quantized already; expand it with "
                "--quantize=none first"
            )
        if info.shape[1] * self._bits % 8:
            raise UsageError(
                f"{name} in {self._source.where(name)} has {info.shape[1]} columns, which int4 "
                "can't store in pairs"
            )


class ExpandedSource(_Wrapped):
    """A source with its quantized matrices expanded.

    Attributes:
      tensors: without scales; matrices have the dtype of their scales, or the one asked for.
    """

    def __init__(
        self, source: WeightSource, dtype: np.dtype | None = None, *, only_words: bool = False
    ) -> None:
        """Works out the new tensors.

        Args:
          source: quantized, or not.
          dtype: of expanded matrices; None for that of their scales.
          only_words: expands only the word embedding.
        """
        super().__init__(source)
        dimensions = measure(source.tensors, str(source.path), source.where, rotary=True)
        self._bits = BITS.get(dimensions.quantization, 8)
        self._scales = {
            name.removesuffix(SCALE) + "weight": name
            for name in source.tensors
            if name.endswith(f".{SCALE}")
        }
        if only_words:
            self._scales = {n: s for n, s in self._scales.items() if n == WORD_EMBEDDING}
        self.tensors = {name: self._info(name, dtype) for name in self.order(source.tensors)}

    def order(self, names: Iterable[str]) -> list[str]:
        """Names of the source without those of scales."""
        scales = set(self._scales.values())
        return [name for name in names if name not in scales]

    def read(self, name: str) -> np.ndarray:
        """One tensor."""
        tensor = self._source.read(name)
        if name not in self._scales:
            return tensor
        scales = self._source.read(self._scales[name])
        return expand_rows(tensor, scales, self._bits, self.tensors[name].dtype)

    def _info(self, name: str, dtype: np.dtype | None) -> TensorInfo:
        info = self._source.tensors[name]
        if name not in self._scales:
            return info
        scales = self._source.tensors[self._scales[name]]
        return TensorInfo((info.shape[0], info.shape[1] * 8 // self._bits), dtype or scales.dtype)
