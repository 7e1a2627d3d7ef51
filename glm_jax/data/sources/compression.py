"""Files, compressed or not, read in blocks of decompressed content."""

from __future__ import annotations

import bz2
import gzip
import lzma
import zlib
from collections.abc import Iterator
from functools import partial
from typing import IO, Any

from glm_jax.errors import UsageError
from glm_jax.io.files import open_file

COMPRESSED = (".gz", ".bz2", ".xz", ".zst")

_READ_BYTES = 1 << 17


class BrokenFileError(Exception):
    """A file that could not be read, or not to its end; says why."""


def compression_of(location: str) -> str:
    """The ending of a file's name that says how it is compressed, in lower case; else ""."""
    name = location.lower()
    return next((suffix for suffix in COMPRESSED if name.endswith(suffix)), "")


def without_compression(location: str) -> str:
    """A file's name without the ending of its compression."""
    return location[: len(location) - len(compression_of(location))]


def read_blocks(location: str) -> Iterator[bytes]:
    """The decompressed content of a file, a little at a time.

    Raises:
      UsageError: the package for this compression is missing.
      BrokenFileError: the file can't be read any further; the blocks before were good.
    """
    try:
        with open_file(location) as file:
            yield from _decompressed(location, file)
    except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        raise BrokenFileError(" ".join(str(error).split()) or type(error).__name__) from error


def _decompressed(location: str, file: IO[bytes]) -> Iterator[bytes]:
    compression = compression_of(location)
    if compression == ".zst":
        return _zstandard_blocks(location, file)
    reader: Any = file
    if compression == ".gz":
        reader = gzip.GzipFile(fileobj=file)
    elif compression == ".bz2":
        reader = bz2.BZ2File(file)
    elif compression == ".xz":
        reader = lzma.LZMAFile(file)  # noqa: SIM115  (owns nothing to close)
    # read1 gives what there is before it fails at what is broken.
    read = getattr(reader, "read1", reader.read)
    return iter(partial(read, _READ_BYTES), b"")


def import_zstandard(location: str) -> Any:
    """The package that reads .zst files.

    Raises:
      UsageError: it is not installed.
    """
    try:
        import zstandard  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise UsageError(
            f"{location} needs the Python package zstandard, which is not installed"
        ) from error
    return zstandard


def _zstandard_blocks(location: str, file: IO[bytes]) -> Iterator[bytes]:
    zstandard = import_zstandard(location)
    frame = zstandard.ZstdDecompressor().decompressobj()
    try:
        for block in iter(partial(file.read, _READ_BYTES), b""):
            while block:
                if frame.eof:
                    frame = zstandard.ZstdDecompressor().decompressobj()
                if content := frame.decompress(block):
                    yield content
                block = frame.unused_data if frame.eof else b""
    except zstandard.ZstdError as error:
        raise OSError(str(error)) from error
    if not frame.eof:
        raise EOFError("the file ends in the middle of its compressed data")
