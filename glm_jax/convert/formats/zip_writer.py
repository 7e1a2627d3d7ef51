"""Writes zip archives of stored entries, each at a multiple of 64 bytes, of any size.

Sizes and places are always given in the 64-bit fields, so that small and large archives are
written by the same code. The standard library's writer can't align entries and, where the disk
fails, writes on while it is collected as garbage.
"""

from __future__ import annotations

import dataclasses
import struct
import zlib
from pathlib import Path

_ALIGNMENT = 64
_CHUNK_BYTES = 1 << 20
_VERSION = 45  # the first with 64-bit fields
_UTF8 = 1 << 11
_DATE = (1 << 5) | 1  # the first day that the format knows: archives depend on their content only
_IN_64_BITS = 0xFFFFFFFF
_CRC_OFFSET = 14

_LOCAL = struct.Struct("<4s5H3I2H")
_CENTRAL = struct.Struct("<4s6H3I5H2I")
_SIZES = struct.Struct("<2H2Q")
_SIZES_AND_PLACE = struct.Struct("<2H3Q")
_END_64 = struct.Struct("<4sQ2H2I4Q")
_LOCATOR = struct.Struct("<4sIQI")
_END = struct.Struct("<4s4H2IH")


@dataclasses.dataclass(frozen=True)
class _Written:
    name: bytes
    place: int
    nbytes: int
    crc: int


class StoredZipWriter:
    """An archive being written to a new file; every method may raise OSError."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("xb", buffering=0)
        self._entries: list[_Written] = []

    def add(self, name: str, data: bytes | memoryview) -> None:
        """Appends one entry."""
        place, view = self._file.tell(), memoryview(data)
        encoded = name.encode()
        sizes = _SIZES.pack(1, 16, len(view), len(view))
        # What is needed up to the next multiple, as an extra field of its own.
        padding = -(place + _LOCAL.size + len(encoded) + len(sizes) + 4) % _ALIGNMENT
        extra = sizes + b"FB" + struct.pack("<H", padding) + b"Z" * padding
        header = _LOCAL.pack(
            *(b"PK\x03\x04", _VERSION, _UTF8, 0, 0, _DATE, 0, _IN_64_BITS, _IN_64_BITS),
            *(len(encoded), len(extra)),
        )
        self._put(header + encoded + extra)
        crc = 0
        for start in range(0, len(view), _CHUNK_BYTES):
            chunk = view[start : start + _CHUNK_BYTES]
            crc = zlib.crc32(chunk, crc)
            self._put(chunk)
        end = self._file.tell()
        self._file.seek(place + _CRC_OFFSET)
        self._put(struct.pack("<I", crc))
        self._file.seek(end)
        self._entries.append(_Written(encoded, place, len(view), crc))

    def finish(self) -> None:
        """Writes the directory and closes the complete archive."""
        start = self._file.tell()
        self._put(b"".join(_central(entry) for entry in self._entries))
        end, count = self._file.tell(), len(self._entries)
        self._put(
            _END_64.pack(
                *(b"PK\x06\x06", _END_64.size - 12, _VERSION, _VERSION, 0, 0),
                *(count, count, end - start, start),
            )
            + _LOCATOR.pack(b"PK\x06\x07", 0, end, 1)
            + _END.pack(b"PK\x05\x06", 0, 0, 0xFFFF, 0xFFFF, _IN_64_BITS, _IN_64_BITS, 0)
        )
        self._file.close()

    def _put(self, data: bytes | memoryview) -> None:
        view = memoryview(data)
        while len(view):
            view = view[self._file.write(view) :]


def _central(entry: _Written) -> bytes:
    extra = _SIZES_AND_PLACE.pack(1, 24, entry.nbytes, entry.nbytes, entry.place)
    header = _CENTRAL.pack(
        *(b"PK\x01\x02", _VERSION, _VERSION, _UTF8, 0, 0, _DATE, entry.crc),
        *(_IN_64_BITS, _IN_64_BITS, len(entry.name), len(extra), 0, 0, 0, 0, _IN_64_BITS),
    )
    return header + entry.name + extra
