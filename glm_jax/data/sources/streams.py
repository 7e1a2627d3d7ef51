"""Sources, found and cut into shards: lists of pieces, each for one worker.

What is found is a list of streams. Cutting a stream gives the same shards whenever and wherever it
is cut, as long as its files don't change, so that a shard may be known by its number.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from glm_jax.data.sources import pieces
from glm_jax.data.sources.compression import (
    COMPRESSED,
    BrokenFileError,
    import_zstandard,
    is_compressed,
    without_compression,
)
from glm_jax.data.sources.document import Document, ReadOptions, ReadStats, documents_of
from glm_jax.data.sources.pieces import LineRange, Piece, Ready, RowGroup, WholeFile
from glm_jax.errors import UsageError
from glm_jax.io.files import SourceFile, find_files
from glm_jax.io.paths import is_url

EMBEDDED = "embedded"
TFDS_PREFIX = "tfds:"
PARQUET = ".parquet"
SUFFIXES = (*(kind + end for kind in (".txt", ".jsonl") for end in ("", *COMPRESSED)), PARQUET)

Shard = tuple[Piece, ...]

# How much smaller than text its compressed form is, at least as a rule.
_COMPRESSION = 8


@dataclass(frozen=True)
class SmallFiles:
    """Files that make one shard together."""

    files: tuple[SourceFile, ...]


@dataclass(frozen=True)
class LargeFile:
    """A file that makes shards of its own."""

    file: SourceFile


@dataclass(frozen=True)
class TfdsStream:
    """One split of a data set that TFDS has prepared; ``stamp`` names its version and size."""

    source: str
    stamp: str


@dataclass(frozen=True)
class EmbeddedStream:
    """The embedded corpus; ``stamp`` names the versions of what it is made of."""

    stamp: str


Stream = SmallFiles | LargeFile | TfdsStream | EmbeddedStream


def find_streams(sources: Iterable[str | os.PathLike[str]], text_key: str) -> list[Stream]:
    """All that ``sources`` (see ``corpus.documents``) hold, each file once.

    Raises:
      UsageError: a source that matches nothing or can't be read for want of a package.
    """
    streams: list[Stream] = []
    small: list[SourceFile] = []
    seen: set[str] = set()
    for found in _found(sources, text_key):
        name = _identity(found)
        if name in seen:
            continue
        seen.add(name)
        if isinstance(found, SourceFile) and _is_small(found):
            if small and sum(map(_text_bytes, small)) + _text_bytes(found) > pieces.PIECE_BYTES:
                streams.append(SmallFiles(tuple(small)))
                small = []
            small.append(found)
            continue
        if small:
            streams.append(SmallFiles(tuple(small)))
            small = []
        streams.append(LargeFile(found) if isinstance(found, SourceFile) else found)
    if small:
        streams.append(SmallFiles(tuple(small)))
    if not streams:
        raise UsageError("there are no sources to read documents from")
    return streams


def cut(stream: Stream, reading: ReadOptions) -> Iterator[Shard]:
    """The shards of a stream, in order.

    Raises:
      UsageError: a Parquet file without the text's column.
    """
    if isinstance(stream, SmallFiles):
        return iter([tuple(WholeFile(file.location) for file in stream.files)])
    if isinstance(stream, TfdsStream):
        incidents = ReadStats()
        return _in_blocks(_tfds_documents(stream, reading, incidents), incidents)
    if isinstance(stream, EmbeddedStream):
        # Imported here because that module builds on this one.
        from glm_jax.data.sources.embedded import embedded_documents

        return _in_blocks(embedded_documents(), ReadStats())
    return _cut_file(stream.file, reading)


def _found(
    sources: Iterable[str | os.PathLike[str]], text_key: str
) -> Iterator[SourceFile | TfdsStream | EmbeddedStream]:
    for source in map(str, sources):
        if source == EMBEDDED:
            from glm_jax.data.sources.embedded import PACKAGES

            yield EmbeddedStream(_versions(PACKAGES))
        elif source.startswith(TFDS_PREFIX):
            yield TfdsStream(source, _tfds_texts(source, text_key).stamp)
        else:
            for file in find_files(source, SUFFIXES):
                if file.location.endswith(".zst"):
                    import_zstandard(file.location)
                yield file


def _identity(found: SourceFile | TfdsStream | EmbeddedStream) -> str:
    if isinstance(found, SourceFile):
        location = found.location
        return location if is_url(location) else str(Path(location).resolve())
    return found.source if isinstance(found, TfdsStream) else EMBEDDED


def _text_bytes(file: SourceFile) -> int:
    return file.size * (_COMPRESSION if is_compressed(file.location) else 1)


def _is_small(file: SourceFile) -> bool:
    return not file.location.endswith(PARQUET) and _text_bytes(file) <= pieces.PIECE_BYTES


def _cut_file(file: SourceFile, reading: ReadOptions) -> Iterator[Shard]:
    """The shards of a large file; what can't be read of it is told by the last one."""
    location, size = file.location, pieces.PIECE_BYTES
    incidents = ReadStats()
    if location.endswith(".jsonl"):
        for start in range(0, file.size, size):
            yield (LineRange(location, start, min(start + size, file.size)),)
    elif location.endswith(PARQUET):
        yield from _cut_parquet(location, reading)
    elif without_compression(location).endswith(".jsonl"):
        try:
            for lines in pieces.line_blocks(location, size):
                yield (lines,)
        except BrokenFileError as error:
            yield (_unreadable(location, error),)
    else:
        blocks = pieces.text_blocks(location)
        documents = documents_of(blocks, location, reading.maximum_characters, incidents)
        try:
            yield from _in_blocks(documents, incidents)
        except BrokenFileError as error:
            yield (_unreadable(location, error),)


def _cut_parquet(location: str, reading: ReadOptions) -> Iterator[Shard]:
    """Row groups, several small ones together; a large one is read and cut into documents."""
    from glm_jax.data.sources.parquet import row_group_bytes, row_group_documents

    try:
        sizes = row_group_bytes(location, reading.text_key)
    except BrokenFileError as error:
        yield (_unreadable(location, error),)
        return
    shard: list[Piece] = []
    shard_bytes = 0
    for index, num_bytes in enumerate(sizes):
        if shard and shard_bytes + num_bytes > pieces.PIECE_BYTES:
            yield tuple(shard)
            shard, shard_bytes = [], 0
        if num_bytes > 2 * pieces.PIECE_BYTES:
            incidents = ReadStats()
            yield from _in_blocks(
                row_group_documents(location, index, reading, incidents), incidents
            )
        else:
            shard.append(RowGroup(location, index))
            shard_bytes += num_bytes
    if shard:
        yield tuple(shard)


def _in_blocks(documents: Iterable[Document], incidents: ReadStats) -> Iterator[Shard]:
    """Shards of documents that are read here; the last one tells the ``incidents``."""
    block: list[Document] = []
    num_bytes = 0
    try:
        for document in documents:
            block.append(document)
            num_bytes += document.num_bytes
            if num_bytes >= pieces.PIECE_BYTES:
                yield (Ready(tuple(block), ReadStats()),)
                block, num_bytes = [], 0
    except BrokenFileError:
        yield (Ready(tuple(block), incidents),)
        raise
    yield (Ready(tuple(block), incidents),)


def _unreadable(location: str, error: BrokenFileError) -> Ready:
    return Ready((), ReadStats(unreadable_files=[f"{location} ({error})"]))


def _tfds_documents(
    stream: TfdsStream, reading: ReadOptions, incidents: ReadStats
) -> Iterator[Document]:
    for number, text in enumerate(_tfds_texts(stream.source, reading.text_key)):
        decoded = text.decode("utf-8", errors="surrogateescape")
        origin = f"{stream.source}:{number}"
        yield from documents_of([decoded], origin, reading.maximum_characters, incidents)


def _tfds_texts(source: str, text_key: str):
    # Imported here because TensorFlow is heavy and the other sources don't need it.
    try:
        from glm_jax.data.sources.tfds import TfdsTexts
    except ImportError as error:
        raise UsageError(f"source {source!r} needs TensorFlow Datasets: {error}") from error
    return TfdsTexts(source.removeprefix(TFDS_PREFIX), text_key)


def _versions(packages: Iterable[str]) -> str:
    import platform
    from importlib.metadata import PackageNotFoundError, version

    found = [f"python {platform.python_version()}"]
    for package in packages:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    return ", ".join(found)
