"""Sources, found and split into shards: lists of pieces, each for one worker.

What is found is a list of inputs. An input gives the same shards whenever and wherever it is split,
as long as its files don't change, so that a shard is identified by its number.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from glm_jax.data.sources import pieces
from glm_jax.data.sources.compression import BrokenFileError, compression_of, import_zstandard
from glm_jax.data.sources.document import Document, ReadOptions, ReadStats, documents_of
from glm_jax.data.sources.formats import Format, find_files, format_of
from glm_jax.data.sources.pieces import LineRange, Piece, Ready, RowGroup, WholeFile
from glm_jax.errors import UsageError
from glm_jax.io.listing import SourceFile
from glm_jax.io.paths import is_url
from glm_jax.io.tfds import TFDS_PREFIX

EMBEDDED = "embedded"

Shard = tuple[Piece, ...]

# How much smaller than text its compressed form is, at least as a rule.
_COMPRESSION = 8


@dataclass(frozen=True)
class SmallFiles:
    """Files that make one shard together."""

    files: tuple[SourceFile, ...]


@dataclass(frozen=True)
class LargeFile:
    """A file with its own shards."""

    file: SourceFile


@dataclass(frozen=True)
class TfdsInput:
    """One split of a data set that TFDS has prepared; ``stamp`` names its version and size."""

    source: str
    stamp: str


@dataclass(frozen=True)
class EmbeddedInput:
    """The embedded corpus; ``stamp`` names the versions of what it is made of."""

    stamp: str


Input = SmallFiles | LargeFile | TfdsInput | EmbeddedInput


def find_inputs(
    sources: Iterable[str | os.PathLike[str]], text_key: str, stats: ReadStats
) -> list[Input]:
    """All that ``sources`` (see ``corpus.documents``) hold, each file once.

    What the sources have besides is counted in ``stats``.

    Raises:
      UsageError: a source that matches nothing or can't be read for want of a package.
    """
    inputs: list[Input] = []
    small: list[SourceFile] = []
    seen: set[str] = set()
    for found in _found(sources, text_key, stats):
        name = _identity(found)
        if name in seen:
            continue
        seen.add(name)
        if isinstance(found, SourceFile) and _is_small(found):
            if small and sum(map(_text_bytes, small)) + _text_bytes(found) > pieces.PIECE_BYTES:
                inputs.append(SmallFiles(tuple(small)))
                small = []
            small.append(found)
            continue
        if small:
            inputs.append(SmallFiles(tuple(small)))
            small = []
        inputs.append(LargeFile(found) if isinstance(found, SourceFile) else found)
    if small:
        inputs.append(SmallFiles(tuple(small)))
    if not inputs:
        raise UsageError("there are no sources to read documents from")
    return inputs


def is_one_document(inputs: Sequence[Input]) -> bool:
    """Whether there is one file, which is one document."""
    files: list[SourceFile] = []
    for input in inputs:
        if isinstance(input, SmallFiles):
            files += input.files
        elif isinstance(input, LargeFile):
            files.append(input.file)
        else:
            return False
    return len(files) == 1 and format_of(files[0].location) is Format.TEXT


def shards_of(input: Input, options: ReadOptions) -> Iterator[Shard]:
    """The shards of an input, in order.

    Raises:
      UsageError: a Parquet file without the text's column.
    """
    if isinstance(input, SmallFiles):
        return iter([tuple(WholeFile(file.location) for file in input.files)])
    if isinstance(input, TfdsInput):
        stats = ReadStats()
        return _in_blocks(_tfds_documents(input, options, stats), stats)
    if isinstance(input, EmbeddedInput):
        # Imported here because that module builds on this one.
        from glm_jax.data.sources.embedded import embedded_documents

        return _in_blocks(embedded_documents(), ReadStats())
    return _file_shards(input.file, options)


def _found(
    sources: Iterable[str | os.PathLike[str]], text_key: str, stats: ReadStats
) -> Iterator[SourceFile | TfdsInput | EmbeddedInput]:
    for source in map(str, sources):
        if source == EMBEDDED:
            from glm_jax.data.sources.embedded import PACKAGES

            yield EmbeddedInput(_versions(PACKAGES))
        elif source.startswith(TFDS_PREFIX):
            yield TfdsInput(source, _tfds_texts(source, text_key).stamp)
        else:
            listing = find_files(source, tuple(Format), text_key)
            stats.add(ReadStats(unreadable_files=listing.broken, ignored_files=listing.ignored))
            for file in listing.files:
                if compression_of(file.location) == ".zst":
                    import_zstandard(file.location)
                yield file


def _identity(found: SourceFile | TfdsInput | EmbeddedInput) -> str:
    if isinstance(found, SourceFile):
        location = found.location
        return location if is_url(location) else str(Path(location).resolve())
    return found.source if isinstance(found, TfdsInput) else EMBEDDED


def _text_bytes(file: SourceFile) -> int:
    return file.size * (_COMPRESSION if compression_of(file.location) else 1)


def _is_small(file: SourceFile) -> bool:
    is_table = format_of(file.location) is Format.TABLE
    return not is_table and _text_bytes(file) <= pieces.PIECE_BYTES


def _file_shards(file: SourceFile, options: ReadOptions) -> Iterator[Shard]:
    """The shards of a large file; the last one reports what can't be read."""
    location, size = file.location, pieces.PIECE_BYTES
    stats = ReadStats()
    if format_of(location) is Format.TABLE:
        yield from _parquet_shards(location, options)
    elif format_of(location) is Format.TEXT:
        documents = documents_of(pieces.text_blocks(location), location, options, stats)
        try:
            yield from _in_blocks(documents, stats)
        except BrokenFileError as error:
            yield (_unreadable(location, error),)
    elif not compression_of(location):
        for start in range(0, file.size, size):
            yield (LineRange(location, start, min(start + size, file.size)),)
    else:
        try:
            for lines in pieces.line_blocks(location, size):
                yield (lines,)
        except BrokenFileError as error:
            yield (_unreadable(location, error),)


def _parquet_shards(location: str, options: ReadOptions) -> Iterator[Shard]:
    """Row groups, several small ones together; a large one is read and split into documents."""
    from glm_jax.data.sources.parquet import row_group_bytes, row_group_documents

    try:
        sizes = row_group_bytes(location, options.text_key)
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
            stats = ReadStats()
            yield from _in_blocks(row_group_documents(location, index, options, stats), stats)
        else:
            shard.append(RowGroup(location, index))
            shard_bytes += num_bytes
    if shard:
        yield tuple(shard)


def _in_blocks(documents: Iterable[Document], stats: ReadStats) -> Iterator[Shard]:
    """Shards of documents that are read here; the last one has the ``stats``."""
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
        yield (Ready(tuple(block), stats),)
        raise
    yield (Ready(tuple(block), stats),)


def _unreadable(location: str, error: BrokenFileError) -> Ready:
    return Ready((), ReadStats(unreadable_files=[f"{location} ({error})"]))


def _tfds_documents(input: TfdsInput, options: ReadOptions, stats: ReadStats) -> Iterator[Document]:
    for number, text in enumerate(_tfds_texts(input.source, options.text_key)):
        decoded = text.decode("utf-8", errors="surrogateescape")
        origin = f"{input.source}:{number}"
        yield from documents_of([decoded], origin, options, stats)


def _tfds_texts(source: str, text_key: str):
    # Imported here because TensorFlow is heavy and the other sources don't need it.
    from glm_jax.data.sources.tfds import TfdsTexts

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
