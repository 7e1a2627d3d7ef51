"""The safetensors format, one tensor at a time in both directions.

A file is the length of its header (8 bytes, little endian), the header in JSON (for every tensor
its dtype, shape and offsets) and the tensors' bytes one after the other. The safetensors library
reads single tensors, but writes only complete dictionaries in memory. The format has
no checksums.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from glm_jax.convert.formats.binary_file import ByteFile
from glm_jax.convert.weights import TensorInfo
from glm_jax.errors import RunError, UsageError

DTYPES: dict[str, np.dtype] = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"),
    "I16": np.dtype("<i2"),
    "I8": np.dtype("i1"),
    "U8": np.dtype("u1"),
    "BOOL": np.dtype("?"),
}
_NAMES = {dtype: name for name, dtype in DTYPES.items()}
# The header of a 10B model has 60 kB; the format itself allows 100 MB.
_MAX_HEADER_BYTES = 16 << 20
_METADATA = "__metadata__"


class SafetensorsFile:
    """An open file.

    Attributes:
      path: the file.
      tensors: every tensor by its name, in the order of the bytes.

    Raises:
      UsageError: the file can't be read, is damaged, or is not in this format.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = ByteFile(path)
        try:
            header, self._start = self._read_header()
            self._offsets: dict[str, tuple[int, int]] = {}
            self.tensors: dict[str, TensorInfo] = {}
            described = {name: self._described(name, header[name]) for name in header}
            self._check_offsets(described)
        except BaseException:
            self._file.close()
            raise

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def read(self, name: str) -> np.ndarray:
        """One tensor as a C-contiguous array that the caller owns."""
        info = self.tensors[name]
        array = np.empty(info.shape, info.dtype)
        self._file.read_into(self._start + self._offsets[name][0], array)
        return array

    def _read_header(self) -> tuple[dict[str, Any], int]:
        count = self._file.read(0, 8)
        length = int.from_bytes(count, "little")
        if len(count) < 8 or length > self._file.size - 8:
            raise UsageError(f"{self.path} is not a safetensors file, or is truncated")
        if length > _MAX_HEADER_BYTES:
            raise UsageError(f"the header of {self.path} has {length} bytes, far too many")
        try:
            header = json.loads(self._file.read(8, length), object_pairs_hook=_without_duplicates)
        except (ValueError, RecursionError) as error:
            raise UsageError(
                f"the header of {self.path} is not JSON as safetensors has it"
            ) from error
        if not isinstance(header, dict):
            raise UsageError(f"the header of {self.path} is not JSON as safetensors has it")
        header.pop(_METADATA, None)
        return header, 8 + length

    def _described(self, name: str, value: Any) -> tuple[TensorInfo, tuple[int, int]]:
        entry = value if isinstance(value, dict) else {}
        dtype = str(entry.get("dtype"))
        shape, offsets = _lengths(entry.get("shape")), _lengths(entry.get("data_offsets"))
        if dtype not in DTYPES or shape is None or offsets is None or len(offsets) != 2:
            raise UsageError(
                f"the header of {self.path} describes {name[:120]!r} by something else than a "
                "known dtype, a shape and two offsets"
            )
        info = TensorInfo(shape, DTYPES[dtype])
        start, end = offsets
        if end - start != info.nbytes:
            raise UsageError(
                f"the header of {self.path} gives {name[:120]!r} {end - start} bytes, but shape "
                f"{list(shape)} and dtype {dtype}"
            )
        return info, (start, end)

    def _check_offsets(self, described: Mapping[str, tuple[TensorInfo, tuple[int, int]]]) -> None:
        """Checks that the tensors fill the file without gaps or overlaps, and keeps them."""
        reached = 0
        for name, (info, offsets) in sorted(described.items(), key=lambda item: item[1][1]):
            if offsets[0] != reached:
                raise UsageError(
                    f"the header of {self.path} puts {name[:120]!r} at byte {offsets[0]}, but "
                    f"the tensor before ends at {reached}"
                )
            reached = offsets[1]
            self.tensors[name], self._offsets[name] = info, offsets
        if self._start + reached != self._file.size:
            raise UsageError(
                f"{self.path} has {self._file.size} bytes, but its header describes "
                f"{self._start + reached}: it is truncated or damaged"
            )


class SafetensorsWriter:
    """Writes a file whose tensors come one by one, in any order.

    Raises:
      RunError: the disk failed.
    """

    def __init__(self, path: Path, tensors: Mapping[str, TensorInfo]) -> None:
        self._path = path
        self._left: dict[str, tuple[TensorInfo, int]] = {}
        header: dict[str, Any] = {_METADATA: {"format": "pt"}}
        reached = 0
        for name, info in tensors.items():
            header[name] = {
                "dtype": _NAMES[info.dtype],
                "shape": list(info.shape),
                "data_offsets": [reached, reached + info.nbytes],
            }
            self._left[name] = (info, reached)
            reached += info.nbytes
        text = json.dumps(header, separators=(",", ":")).encode()
        # Spaces bring the first tensor to a multiple of 8 bytes, as the library does.
        text += b" " * (-len(text) % 8)
        self._start = 8 + len(text)
        try:
            self._file = path.open("xb", buffering=0)
            self._put(len(text).to_bytes(8, "little") + text)
        except OSError as error:
            raise self._failed(error) from error

    def write(self, name: str, array: np.ndarray) -> None:
        """One of the tensors, with the shape and dtype that were announced.

        Raises:
          RunError: the disk failed.
        """
        info, offset = self._left.pop(name)
        if (array.shape, array.dtype) != (info.shape, info.dtype):
            raise ValueError(f"{name} has {array.shape} {array.dtype} and not {info}")
        try:
            self._file.seek(self._start + offset)
            self._put(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
        except OSError as error:
            raise self._failed(error) from error

    def finish(self) -> None:
        """Closes the complete file."""
        if self._left:
            raise ValueError(f"{next(iter(self._left))} was announced, but never written")
        self._file.close()

    def _put(self, data: bytes | memoryview) -> None:
        view = memoryview(data)
        while len(view):
            view = view[self._file.write(view) :]

    def _failed(self, error: OSError) -> RunError:
        return RunError(f"{self._path} can't be written: {error.strerror}")


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a name is there twice")
    return result


def _lengths(values: object) -> tuple[int, ...] | None:
    """Sizes or offsets as a tuple; None for anything else."""
    if not isinstance(values, list) or len(values) > 8:
        return None
    if not all(type(value) is int and 0 <= value < 1 << 48 for value in values):
        return None
    return tuple(values)
