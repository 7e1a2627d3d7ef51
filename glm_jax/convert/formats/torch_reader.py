"""`torch.save` files without torch: the object tree at once, each tensor when it is asked for.

Two formats exist. Since torch 1.6 a file is a zip archive whose entries are stored as they are:
`<name>/data.pkl` describes the objects and `<name>/data/<key>` holds the bytes of each storage.
Before, a file was three small pickles (a magic number, a protocol version, the machine's sizes),
the pickle of the objects, one of the storages' keys, and every storage: its length and its bytes.
The zip format has a checksum of every entry, the legacy format has none.
"""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path
from typing import Any

import numpy as np

from glm_jax.convert.formats.binary_file import ByteFile
from glm_jax.convert.formats.restricted_pickle import PickleMachine
from glm_jax.convert.formats.torch_tensors import NAMES, Description, StoredTensor
from glm_jax.convert.formats.zip_reader import Entry, read_entries
from glm_jax.errors import UsageError

# The pickle of a 10B model has 100 kB, that of its random states 20 kB.
_MAX_PICKLE_BYTES = 4 << 20
_ZIP_MAGIC = b"PK\x03\x04"
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_VERSION = 1001


@dataclasses.dataclass(frozen=True)
class _Region:
    """Where the bytes of a storage are, and their CRC-32 where the format has one."""

    start: int
    crc: int | None


class TorchFile:
    """An open file.

    Attributes:
      path: the file.
      content: its object tree: dictionaries, lists, tuples, numbers and text as they are, tensors
        as `StoredTensor`, everything else as `Inert`.
      saved_name: the name, without suffix, that the file had when it was saved; None where that
        isn't recorded.

    Raises:
      UsageError: the file can't be read, is damaged, is no `torch.save` file, or asks for more than
        data.
    """

    content: Any
    saved_name: str | None

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = ByteFile(path)
        self._verified: set[str] = set()
        try:
            magic = self._file.read(0, 4)
            if magic == _ZIP_MAGIC:
                self._open_zip()
            elif magic[:2] == b"\x80\x02":
                self._open_legacy()
            else:
                raise UsageError(f"{path} is not a file of torch.save")
        except BaseException:
            self._file.close()
            raise

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def read(self, tensor: StoredTensor) -> np.ndarray:
        """One tensor of this file as a C-contiguous array that the caller owns.

        Raises:
          UsageError: the bytes don't match their checksum.
        """
        storage, region = tensor.storage, self._regions[tensor.storage.key]
        start = region.start + tensor.offset * storage.dtype.itemsize
        if not tensor.contiguous:
            self._verify(storage.key, region, storage.nbytes)
            span = np.empty(tensor.span, storage.dtype)
            self._file.read_into(start, span)
            strides = [stride * storage.dtype.itemsize for stride in tensor.strides]
            return np.lib.stride_tricks.as_strided(span, tensor.shape, strides).copy()
        array = np.empty(tensor.shape, storage.dtype)
        if array.size == storage.count:
            self._compare(storage.key, region, self._file.read_into(start, array))
        else:
            self._verify(storage.key, region, storage.nbytes)
            self._file.read_into(start, array)
        return array

    def _verify(self, key: str, region: _Region, nbytes: int) -> None:
        """Checks a storage of which only a part will be read, once."""
        if region.crc is not None and key not in self._verified:
            self._compare(key, region, self._file.checksum(region.start, nbytes))

    def _compare(self, key: str, region: _Region, checksum: int) -> None:
        if region.crc is not None and checksum != region.crc:
            raise UsageError(f"storage {key} of {self.path} is damaged: its checksum is wrong")
        self._verified.add(key)

    def _open_zip(self) -> None:
        entries = read_entries(self._file)
        descriptions = [name for name in entries if name.split("/")[1:] == ["data.pkl"]]
        if len(descriptions) != 1:
            raise UsageError(f"{self.path} is a zip archive, but not one that torch.save wrote")
        self.saved_name = root = descriptions[0].split("/")[0]
        byte_order = entries.get(f"{root}/byteorder")
        if byte_order and self._read_entry(f"{root}/byteorder", byte_order, 16) != b"little":
            raise UsageError(f"{self.path} has another byte order than little endian")
        pickled = self._read_entry(descriptions[0], entries[descriptions[0]], _MAX_PICKLE_BYTES)
        stream = io.BytesIO(pickled)
        description = Description(f"{self.path}")
        self.content = self._machine(description).load(stream)
        if stream.read(1):
            raise UsageError(f"{descriptions[0]} in {self.path} has more bytes after its pickle")
        self._regions = {}
        for key, storage in description.storages.items():
            entry = entries.get(f"{root}/data/{key}")
            if entry is None:
                raise UsageError(f"{self.path} has no storage {key[:80]!r}, which its pickle names")
            if entry.nbytes != storage.nbytes:
                raise UsageError(
                    f"storage {key[:80]} of {self.path} has {entry.nbytes} bytes, but its pickle "
                    f"says {storage.count} elements of {storage.dtype}"
                )
            self._regions[key] = _Region(entry.start, entry.crc)

    def _read_entry(self, name: str, entry: Entry, limit: int) -> bytes:
        if entry.nbytes > limit:
            raise UsageError(f"{name} in {self.path} has {entry.nbytes} bytes, over {limit}")
        buffer = np.empty(entry.nbytes, np.uint8)
        if self._file.read_into(entry.start, buffer) != entry.crc:
            raise UsageError(f"{name} in {self.path} is damaged: its checksum is wrong")
        return buffer.tobytes()

    def _open_legacy(self) -> None:
        self.saved_name = None
        stream = io.BytesIO(self._file.read(0, _MAX_PICKLE_BYTES))
        plain = PickleMachine(str(self.path), {})
        if plain.load(stream) != _LEGACY_MAGIC:
            raise UsageError(f"{self.path} is not a file of torch.save")
        version, system = plain.load(stream), plain.load(stream)
        if version != _LEGACY_VERSION:
            raise UsageError(f"{self.path} has an unknown version of the legacy torch.save format")
        if not isinstance(system, dict) or system.get("little_endian") is not True:
            raise UsageError(f"{self.path} has another byte order than little endian")
        description = Description(str(self.path))
        self.content = self._machine(description).load(stream)
        keys = plain.load(stream)
        if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
            raise UsageError(f"{self.path} has no list of its storages")
        if len(set(keys)) != len(keys) or set(keys) != set(description.storages):
            raise UsageError(f"{self.path} does not list the storages of its tensors")
        self._regions, position = {}, stream.tell()
        for key in keys:
            storage = description.storages[key]
            if self._file.read(position, 8) != storage.count.to_bytes(8, "little"):
                raise UsageError(
                    f"{self.path} has no storage of {storage.count} elements at byte {position}, "
                    f"where storage {key[:80]} should start"
                )
            self._regions[key] = _Region(position + 8, None)
            position += 8 + storage.nbytes
        if position != self._file.size:
            raise UsageError(
                f"{self.path} has {self._file.size} bytes, but describes {position}: it is "
                "truncated or damaged"
            )

    def _machine(self, description: Description) -> PickleMachine:
        return PickleMachine(str(self.path), description.constructors(), NAMES, description.storage)
