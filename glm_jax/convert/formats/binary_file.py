"""A file read by plain positioned reads, with checksums, as every weight format needs it.

Plain reads and not memory maps: mapped pages count as resident memory, so that a checkpoint larger
than the machine would seem to be held in memory.
"""

from __future__ import annotations

import stat
import zlib
from pathlib import Path

import numpy as np

from glm_jax.errors import UsageError

# Fits the second-level cache, so that the checksum reads what the disk read has just left there.
_CHUNK_BYTES = 1 << 20
# What a git repository has instead of a large file (git LFS).
_GIT_POINTER = b"version https://git-lfs.github.com/"


class ByteFile:
    """An open file of known size.

    Raises:
      UsageError: there is no such file, it can't be read, or it is the pointer to one that git LFS
        did not fetch.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            status = path.stat()
            # Opening a named pipe would wait until something is written into it.
            if not stat.S_ISREG(status.st_mode):
                raise UsageError(f"{path} can't be read: it is no file")
            self._file = path.open("rb", buffering=0)
        except OSError as error:
            raise UsageError(f"{path} can't be read: {error.strerror}") from error
        self.size = status.st_size
        if self.read(0, len(_GIT_POINTER)) == _GIT_POINTER:
            self.close()
            raise UsageError(
                f"{path} is only a pointer to the weights: fetch them with `git lfs pull`"
            )

    def close(self) -> None:
        """Closes the file; nothing can be read afterwards."""
        self._file.close()

    def read(self, start: int, count: int) -> bytes:
        """Up to `count` bytes from `start`; fewer at the end of the file, none outside it."""
        if not 0 <= start < self.size:
            return b""
        count = min(count, self.size - start)
        buffer = np.empty(count, np.uint8)
        self.read_into(start, buffer)
        return buffer.tobytes()

    def read_into(self, start: int, target: np.ndarray) -> int:
        """Fills a C-contiguous array with the bytes from `start`; returns their CRC-32.

        Raises:
          UsageError: the file ends before the array is full, or can't be read.
        """
        view = target.reshape(-1).view(np.uint8).data
        checksum, done = 0, 0
        try:
            self._file.seek(start)
            while done < len(view):
                chunk = view[done : done + _CHUNK_BYTES]
                count = self._file.readinto(chunk)
                if not count:
                    raise UsageError(
                        f"{self.path} ends at byte {start + done}, but was expected to hold "
                        f"{len(view)} bytes from byte {start} on"
                    )
                checksum = zlib.crc32(chunk[:count], checksum)
                done += count
        except OSError as error:
            raise UsageError(f"{self.path} can't be read: {error.strerror}") from error
        return checksum

    def checksum(self, start: int, count: int) -> int:
        """The CRC-32 of `count` bytes from `start`, read in pieces."""
        buffer = np.empty(min(count, 1 << 24), np.uint8)
        checksum, done = 0, 0
        while done < count:
            piece = buffer[: min(count - done, len(buffer))]
            self.read_into(start + done, piece)
            checksum = zlib.crc32(piece.data, checksum)
            done += len(piece)
        return checksum
