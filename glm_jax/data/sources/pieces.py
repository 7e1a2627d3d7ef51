"""Pieces of sources: what a worker is handed, and the documents in it.

A piece is small enough for one worker. The documents of all pieces, one after the other, are those
of the sources, whoever reads them.
"""

from __future__ import annotations

import codecs
import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from glm_jax.data.sources.compression import BrokenFileError, read_blocks
from glm_jax.data.sources.document import Document, ReadOptions, ReadStats, documents_of
from glm_jax.data.sources.formats import (
    KEYS_SHOWN,
    Format,
    format_of,
    json_object,
    wrong_lines,
)
from glm_jax.errors import UsageError
from glm_jax.io.encodings import foreign_format
from glm_jax.io.files import open_file

# Size of a piece: enough to be worth a file, little enough to keep memory small.
PIECE_BYTES = 1 << 23


@dataclass(frozen=True)
class WholeFile:
    """A small file."""

    location: str


@dataclass(frozen=True)
class LineRange:
    """The lines of an uncompressed file that start at the bytes ``start`` to ``end``."""

    location: str
    start: int
    end: int


@dataclass(frozen=True)
class Lines:
    """Lines of a compressed file; ``start`` is their offset in its decompressed content."""

    location: str
    start: int
    content: bytes


@dataclass(frozen=True)
class RowGroup:
    """Rows of a Parquet file that are stored together."""

    location: str
    index: int


@dataclass(frozen=True)
class Ready:
    """Documents that are read already, and what happened while they were."""

    documents: tuple[Document, ...]
    stats: ReadStats


Piece = WholeFile | LineRange | Lines | RowGroup | Ready


def read_piece(piece: Piece, options: ReadOptions, stats: ReadStats) -> Iterator[Document]:
    """The documents of a piece; ``stats`` are counted up.

    Raises:
      UsageError: no line of a .jsonl file, as far as it starts in this piece, has the key.
    """
    if isinstance(piece, Ready):
        stats.add(piece.stats)
        return iter(piece.documents)
    if isinstance(piece, RowGroup):
        # Imported here because pyarrow is an optional package.
        from glm_jax.data.sources.parquet import row_group_documents

        return row_group_documents(piece.location, piece.index, options, stats)
    if isinstance(piece, WholeFile):
        return _whole_file_documents(piece.location, options, stats)
    if isinstance(piece, Lines):
        lines = io.BytesIO(piece.content)
        return _line_documents(lines, piece.location, piece.start, options, stats)
    return _range_documents(piece, options, stats)


def text_blocks(location: str) -> Iterator[str]:
    """The text of a file in blocks; bad bytes become lone surrogates, which no good text has.

    Raises:
      BrokenFileError: the file is no UTF-8 text, or can't be read any further.
    """
    decoder = codecs.getincrementaldecoder("utf-8-sig")(errors="surrogateescape")
    decoder = io.IncrementalNewlineDecoder(decoder, translate=True)
    is_first = True
    for block in read_blocks(location):
        if is_first and (found := foreign_format(block)):
            raise BrokenFileError(found)
        is_first = False
        yield decoder.decode(block)
    yield decoder.decode(b"", final=True)


def line_blocks(location: str, block_bytes: int) -> Iterator[Lines]:
    """The lines of a compressed file in blocks of at least ``block_bytes``.

    Raises:
      BrokenFileError: the file can't be read any further; the lines before were given.
    """
    content, start = bytearray(), 0
    try:
        for block in read_blocks(location):
            content += block
            end = content.rfind(b"\n") + 1
            if end >= block_bytes:
                yield Lines(location, start, bytes(content[:end]))
                del content[:end]
                start += end
    except BrokenFileError:
        if end := content.rfind(b"\n") + 1:
            yield Lines(location, start, bytes(content[:end]))
        raise
    if content:
        yield Lines(location, start, bytes(content))


def _whole_file_documents(
    location: str, options: ReadOptions, stats: ReadStats
) -> Iterator[Document]:
    try:
        if format_of(location) is Format.LINES:
            for piece in line_blocks(location, PIECE_BYTES):
                yield from read_piece(piece, options, stats)
        else:
            yield from documents_of(text_blocks(location), location, options, stats)
    except BrokenFileError as error:
        stats.unreadable_files.append(f"{location} ({error})")


def _range_documents(
    piece: LineRange, options: ReadOptions, stats: ReadStats
) -> Iterator[Document]:
    try:
        with open_file(piece.location) as file:
            if piece.start:
                file.seek(piece.start - 1)
                file.readline()  # ends where the first line of the range starts
            start = file.tell()
            lines = _lines_before(file, start, piece.end)
            yield from _line_documents(lines, piece.location, start, options, stats)
    except OSError as error:
        stats.unreadable_files.append(f"{piece.location} ({error.strerror or error})")


def _lines_before(file: Iterable[bytes], position: int, end: int) -> Iterator[bytes]:
    if position >= end:
        return
    for line in file:
        yield line
        position += len(line)
        if position >= end:
            return


def _line_documents(
    lines: Iterable[bytes], location: str, start: int, options: ReadOptions, stats: ReadStats
) -> Iterator[Document]:
    has_key = False
    first_line: bytes | None = None
    keys: dict[str, None] = {}
    position = start
    for line in lines:
        origin = f"{location}:{position}"
        content = line.removeprefix(codecs.BOM_UTF8) if position == 0 else line
        position += len(line)
        if not content or content.isspace():
            continue
        record = json_object(content)
        if first_line is None:
            first_line = content
            if start == 0 and record is None and not content.rstrip().endswith(b"]"):
                _refuse_other_formats(location, content)
        if record is None:
            stats.bad_json_lines += 1
            continue
        has_key = has_key or options.text_key in record
        if len(keys) < KEYS_SHOWN:
            keys |= dict.fromkeys(record)
        text = record.get(options.text_key)
        if isinstance(text, str):
            yield from documents_of([text], origin, options, stats)
        else:
            stats.lines_without_text += 1
    if start == 0 and first_line is not None and not has_key:
        _refuse_other_formats(location, first_line)
        found = ", ".join(list(keys)[:KEYS_SHOWN]) or "none"
        raise UsageError(
            f"no line of {location} has the key {options.text_key!r}; keys found: {found}"
        )


def _refuse_other_formats(location: str, first_line: bytes) -> None:
    """Raises UsageError if a file's first line says that it holds no lines of JSON objects."""
    if found := wrong_lines(first_line):
        raise UsageError(f"{location} is {found}")
