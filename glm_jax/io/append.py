"""Files that grow: metrics and events of a run, by path or URL."""

from __future__ import annotations

import os
import time
from contextlib import suppress

from glm_jax.io.files import make_folder, naming_file, write_file
from glm_jax.io.paths import is_url, resolve_path

# An object of a bucket can't be appended to and is written again, in at most this share of time.
REWRITING_SHARE = 0.05


class AppendedFile:
    """A file that bytes are appended to.

    On a local path they are in the file when `append` returns, or none of them is. At a URL they
    are so when the file is closed, and before that as often as writing all of it again takes a
    twentieth of the time.
    """

    def __init__(self, location: str | os.PathLike[str], content: bytes = b""):
        """Writes the file anew with `content`.

        Raises:
          OSError: it can't be written.
        """
        self._path = resolve_path(location)
        make_folder(self._path.parent)
        write_file(self._path, content)
        self._next_write = 0.0
        self._content = bytearray(content) if is_url(self._path) else None
        self._file = None if is_url(self._path) else open(self._path, "ab", buffering=0)  # noqa: SIM115

    def append(self, content: bytes) -> None:
        """Adds bytes.

        Raises:
          OSError: they can't be written, as on a full disk.
        """
        if self._content is not None:
            self._content += content
            if time.monotonic() >= self._next_write:
                self._rewrite()
        elif self._file is not None:
            with naming_file(self._path):
                _append(self._file, content)

    def close(self) -> None:
        """Writes what isn't in the file yet, and closes it."""
        if self._content is not None:
            self._rewrite()
            self._content = None
        elif self._file is not None:
            self._file.close()
            self._file = None

    def _rewrite(self) -> None:
        start = time.monotonic()
        write_file(self._path, bytes(self._content or b""))
        end = time.monotonic()
        self._next_write = end + (end - start) / REWRITING_SHARE


def _append(file, content: bytes) -> None:
    """Writes all bytes at the end of an unbuffered file, or none."""
    size = os.fstat(file.fileno()).st_size
    remaining = memoryview(content)
    try:
        while remaining:
            remaining = remaining[file.write(remaining) :]
    except OSError:
        with suppress(OSError):
            file.truncate(size)
        raise
