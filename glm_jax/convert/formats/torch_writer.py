"""Writes `torch.save` files without torch, one tensor at a time.

The description comes first and names every storage; each tensor then is an entry of its own, stored
as it is at a multiple of 64 bytes, so that `torch.load(..., mmap=True)` can map it.
"""

from __future__ import annotations

import dataclasses
import struct
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from glm_jax.convert.formats.torch_tensors import STORAGE_DTYPES
from glm_jax.convert.formats.zip_writer import StoredZipWriter
from glm_jax.convert.weights import TensorInfo
from glm_jax.errors import RunError

_STORAGE_NAMES = {dtype: name for name, dtype in STORAGE_DTYPES.items()}


@dataclasses.dataclass(frozen=True)
class Announced:
    """A tensor that is still to be written."""

    name: str
    info: TensorInfo


class TorchWriter:
    """Writes a file whose tensors come one by one, in any order.

    Args:
      path: the file, which must not exist.
      content: what `torch.load` gives back: dictionaries, lists, text, numbers and None, with
        an `Announced` instead of every tensor, all of different names.

    Raises:
      RunError: the disk failed.
    """

    def __init__(self, path: Path, content: Any) -> None:
        self._path = path
        self._root = path.stem
        self._left = {
            tensor.name: (key, tensor.info) for key, tensor in enumerate(_announced(content))
        }
        try:
            self._archive = StoredZipWriter(path)
            self._add("data.pkl", _pickled(content))
            self._add("byteorder", b"little")
            self._add("version", b"3\n")
        except OSError as error:
            raise self._failed(error) from error

    def write(self, name: str, array: np.ndarray) -> None:
        """One of the announced tensors, with the shape and dtype that were announced.

        Raises:
          RunError: the disk failed.
        """
        key, info = self._left.pop(name)
        if (array.shape, array.dtype) != (info.shape, info.dtype):
            raise ValueError(f"{name} has {array.shape} {array.dtype} and not {info}")
        try:
            self._add(f"data/{key}", np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
        except OSError as error:
            raise self._failed(error) from error

    def finish(self) -> None:
        """Writes the archive's directory and closes the complete file."""
        if self._left:
            raise ValueError(f"{next(iter(self._left))} was announced, but never written")
        try:
            self._archive.finish()
        except OSError as error:
            raise self._failed(error) from error

    def _add(self, name: str, data: bytes | memoryview) -> None:
        self._archive.add(f"{self._root}/{name}", data)

    def _failed(self, error: OSError) -> RunError:
        return RunError(f"{self._path} can't be written: {error.strerror}")


def _announced(content: Any) -> Iterator[Announced]:
    if isinstance(content, Announced):
        yield content
    elif isinstance(content, dict | list):
        for value in content.values() if isinstance(content, dict) else content:
            yield from _announced(value)


def _pickled(content: Any) -> bytes:
    """The pickle of `content`, in the opcodes of protocol 2."""
    keys = iter(range(1 << 31))
    return b"\x80\x02" + b"".join(_opcodes(content, keys)) + b"."


def _opcodes(value: Any, keys: Iterator[int]) -> Iterator[bytes]:
    if isinstance(value, Announced):
        yield from _tensor_opcodes(value.info, keys)
    elif value is None:
        yield b"N"
    elif isinstance(value, bool):
        yield b"\x88" if value else b"\x89"
    elif isinstance(value, int):
        yield _integer(value)
    elif isinstance(value, str):
        yield _text(value)
    elif isinstance(value, list):
        yield b"]("
        for item in value:
            yield from _opcodes(item, keys)
        yield b"e"
    elif isinstance(value, dict):
        yield b"ccollections\nOrderedDict\n)R(" if isinstance(value, OrderedDict) else b"}("
        for key, item in value.items():
            yield _text(key)
            yield from _opcodes(item, keys)
        yield b"u"
    else:
        raise TypeError(f"{type(value)} can't be written into a checkpoint")


def _tensor_opcodes(info: TensorInfo, keys: Iterator[int]) -> Iterator[bytes]:
    """`_rebuild_tensor_v2(storage, offset 0, shape, strides, requires_grad False, no hooks)`."""
    dtype = info.dtype
    module, name = _STORAGE_NAMES[dtype].split(".")
    count = info.nbytes // dtype.itemsize
    strides = [1]
    for length in reversed(info.shape[1:]):
        strides.insert(0, strides[0] * length)
    yield b"ctorch._utils\n_rebuild_tensor_v2\n(("
    yield _text("storage") + f"c{module}\n{name}\n".encode()
    yield _text(str(next(keys))) + _text("cpu") + _integer(count) + b"tQ"
    yield _integer(0)
    for lengths in (info.shape, strides[: len(info.shape)]):
        yield b"(" + b"".join(_integer(length) for length in lengths) + b"t"
    yield b"\x89ccollections\nOrderedDict\n)RtR"


def _integer(value: int) -> bytes:
    if 0 <= value < 1 << 31:
        return b"J" + struct.pack("<i", value)
    data = value.to_bytes(9, "little", signed=True)
    return b"\x8a" + bytes([len(data)]) + data


def _text(value: str) -> bytes:
    data = value.encode()
    return b"X" + struct.pack("<I", len(data)) + data
