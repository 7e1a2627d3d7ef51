"""A small file that several processes change by compare-and-swap, on whatever it is stored.

TensorStore writes conditionally to local and network file systems, gs:// and s3://.
"""

from __future__ import annotations

import time
from typing import Protocol

import tensorstore as ts
from etils import epath

from glm_jax.io.paths import ORBAX_SCHEMES, is_url, key_value_store, scheme_of

# Where writes aren't conditional: how long after a write another process may still write.
SETTLE_SECONDS = 1.0


class SwapFile(Protocol):
    """A file that is written only where it has not changed in between."""

    def read(self) -> tuple[bytes | None, bytes]:
        """Its content, None where it is missing, and its generation."""
        ...

    def write(self, content: bytes | None, generation: bytes) -> bytes | None:
        """Writes it, or removes it for None; None if it no longer has that generation."""
        ...


def open_swap_file(path: epath.Path) -> SwapFile:
    """A file at an absolute path or URL."""
    if is_url(path) and scheme_of(path) not in ORBAX_SCHEMES:
        return _UnconditionalFile(path)
    return _ConditionalFile(path)


class _ConditionalFile:
    """A file that TensorStore reads and writes."""

    def __init__(self, path: epath.Path):
        self._name = path.name
        self._store = ts.KvStore.open(key_value_store(path.parent)).result()

    def read(self) -> tuple[bytes | None, bytes]:
        found = self._store.read(self._name).result()
        return found.value if found.state == "value" else None, found.stamp.generation

    def write(self, content: bytes | None, generation: bytes) -> bytes | None:
        written = self._store.write(self._name, content, if_equal=generation).result()
        return written.generation or None


class _UnconditionalFile:
    """A file where writes aren't conditional: of two processes that write at once, the last wins.

    Who makes the file waits a moment, and then looks whose it is.
    """

    def __init__(self, path: epath.Path):
        self._path = path

    def read(self) -> tuple[bytes | None, bytes]:
        try:
            content = self._path.read_bytes()
        except FileNotFoundError:
            return None, b""
        return content, content

    def write(self, content: bytes | None, generation: bytes) -> bytes | None:
        before, found = self.read()
        if found != generation:
            return None
        if content is None:
            self._path.unlink(missing_ok=True)
            return b"removed"
        self._path.write_bytes(content)
        if before is None:
            time.sleep(SETTLE_SECONDS)
        return content if self.read()[1] == content else None
