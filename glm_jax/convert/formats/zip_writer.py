"""Writes zip archives of stored entries whose data starts at multiples of 64 bytes, of any size."""

from __future__ import annotations

import struct
import zipfile
from pathlib import Path

_ALIGNMENT = 64
_CHUNK_BYTES = 1 << 20
_DATE = (1980, 1, 1, 0, 0, 0)  # the first of the format: archives depend on their content only
_LOCAL_HEADER_BYTES = 30
_ZIP64_BYTES = 20  # sizes in 64 bits, which every entry has
_PADDING_HEADER = struct.Struct("<2sH")


class StoredZipWriter:
    """An archive being written to a new file; every method may raise OSError."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("xb")
        self._archive = zipfile.ZipFile(self._file, "w", zipfile.ZIP_STORED)

    def add(self, name: str, data: bytes | memoryview) -> None:
        """Appends one entry."""
        view, entry = memoryview(data), zipfile.ZipInfo(name, _DATE)
        header_bytes = _LOCAL_HEADER_BYTES + len(name.encode()) + _ZIP64_BYTES
        start = self._file.tell() + header_bytes + _PADDING_HEADER.size
        padding = -start % _ALIGNMENT
        # As PyTorch pads its archives: an extra field of the header.
        entry.extra = _PADDING_HEADER.pack(b"FB", padding) + b"Z" * padding
        entry.file_size = len(view)
        try:
            with self._archive.open(entry, "w", force_zip64=True) as stream:
                for position in range(0, len(view), _CHUNK_BYTES):
                    stream.write(view[position : position + _CHUNK_BYTES])
        except OSError:
            self._abandon()
            raise

    def finish(self) -> None:
        """Writes the directory and closes the complete archive."""
        try:
            self._archive.close()
            self._file.close()
        except OSError:
            self._abandon()
            raise

    def _abandon(self) -> None:
        """Keeps the archive from writing its directory when it is collected as garbage."""
        self._archive.fp = None
