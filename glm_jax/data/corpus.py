"""Documents out of folders, files, TFDS data sets and the embedded corpus, whatever their state."""

from __future__ import annotations

import glob
import gzip
import hashlib
import json
import os
import re
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import IO

from glm_jax.errors import UsageError

SUFFIXES = (".txt", ".txt.gz", ".jsonl", ".jsonl.gz")
EMBEDDED = "embedded"
TFDS_PREFIX = "tfds:"
MAXIMUM_CHARACTERS = 1 << 20

_SURROGATE = re.compile("[\ud800-\udfff]")
_KEYS_SHOWN = 12


@dataclass(frozen=True)
class Document:
    """One document, or one part of a document too long to be handled at once.

    ``origin`` says where it came from, ``num_bytes`` is its size in UTF-8. ``digest`` is a hash of
    the text (of the first part, for every part of a split document): it stays the same wherever
    the document is found and whatever stands beside it.
    """

    text: str
    origin: str
    num_bytes: int
    digest: bytes


@dataclass
class Incidents:
    """What happened while documents were read; counted up as the reading goes on.

    Empty documents, lines that aren't JSON objects, lines without text and the rest of unreadable
    files are skipped; bad UTF-8 is replaced by U+FFFD; documents longer than the maximum are split.
    """

    empty_documents: int = 0
    documents_with_bad_utf8: int = 0
    split_documents: int = 0
    bad_json_lines: int = 0
    lines_without_text: int = 0
    unreadable_files: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Reading:
    """How to read, and where to count what happens."""

    text_key: str
    incidents: Incidents
    maximum_characters: int


def documents(
    sources: Iterable[str | os.PathLike[str]],
    *,
    text_key: str = "text",
    incidents: Incidents | None = None,
    maximum_characters: int = MAXIMUM_CHARACTERS,
) -> Iterator[Document]:
    """All documents of ``sources``, always in the same order, one in memory at a time.

    Args:
      sources: each a file (.txt is one document, .jsonl one a line; also .gz), a folder of such
        files at any depth (hidden ones left out), a glob pattern, ``tfds:NAME[/CONFIG][#SPLIT]``
        (split "train" unless said) or ``embedded``. A file that is found twice is read once.
      text_key: key of the text in .jsonl and TFDS; a data set with one text feature needs none.
      incidents: counts what was skipped, replaced or split.
      maximum_characters: longer documents are split, at the end of a paragraph if possible.

    Raises:
      UsageError: at once, a source that matches nothing, a data set that is not prepared or a
        number out of range; while reading, a .jsonl file in which no line has ``text_key``.
    """
    if maximum_characters < 1:
        raise UsageError(f"maximum_characters is {maximum_characters}, expected at least 1")
    reading = _Reading(text_key, incidents or Incidents(), maximum_characters)
    streams: dict[str, partial[Iterator[Document]]] = {}
    for source in map(str, sources):
        if source == EMBEDDED:
            # Imported here because that module builds on this one.
            from glm_jax.data.embedded import embedded_documents

            streams[source] = partial(embedded_documents)
        elif source.startswith(TFDS_PREFIX):
            # Imported here because TensorFlow is heavy and the other sources don't need it.
            from glm_jax.data.tfds_texts import TfdsTexts

            texts = TfdsTexts(source.removeprefix(TFDS_PREFIX), text_key)
            streams[source] = partial(_from_tfds, texts, source, reading)
        else:
            for path in _files(source):
                streams[str(path.resolve())] = partial(_from_file, path, reading)
    if not streams:
        raise UsageError("there are no sources to read documents from")
    return (document for stream in streams.values() for document in stream())


def document_of(text: str, origin: str) -> Document:
    """A whole document of clean text."""
    encoded = text.encode()
    return Document(text, origin, len(encoded), hashlib.blake2b(encoded, digest_size=8).digest())


def replace_surrogates(text: str) -> tuple[str, int]:
    """``text`` with U+FFFD for every lone surrogate, which UTF-8 cannot hold, and their number."""
    return _SURROGATE.subn("\ufffd", text)


def split_text(blocks: Iterable[str], maximum_characters: int) -> Iterator[str]:
    """Cut text that arrives in blocks into parts of at most ``maximum_characters``.

    A cut falls after the last empty line of the second half of a part, else after its last newline,
    else after its last space, else anywhere. The parts joined are the text.
    """
    rest = ""
    for block in blocks:
        rest += block
        start = 0
        while len(rest) - start > maximum_characters:
            end = _cut(rest, start, start + maximum_characters)
            yield rest[start:end]
            start = end
        rest = rest[start:]
    if rest:
        yield rest


def _cut(text: str, start: int, end: int) -> int:
    middle = (start + end) // 2
    for mark in ("\n\n", "\n", " "):
        found = text.rfind(mark, middle, end)
        if found >= 0:
            return found + len(mark)
    return end


def _documents_of(blocks: Iterable[str], origin: str, reading: _Reading) -> Iterator[Document]:
    """The parts of one document (one, as a rule), without whitespace around them."""
    digest, parts, bad_utf8 = b"", 0, False
    for part in split_text(blocks, reading.maximum_characters):
        text, replaced = replace_surrogates(part.strip())
        bad_utf8 = bad_utf8 or replaced > 0
        if text:
            document = document_of(text, origin)
            digest = digest or document.digest
            parts += 1
            yield Document(text, origin, document.num_bytes, digest)
    reading.incidents.empty_documents += parts == 0
    reading.incidents.split_documents += parts > 1
    reading.incidents.documents_with_bad_utf8 += bad_utf8


def _files(source: str) -> list[Path]:
    """The files that a path or a glob pattern stands for, sorted.

    Raises:
      UsageError: there are none.
    """
    path = Path(source)
    if path.is_dir():
        found = [file for file in path.rglob("*") if _is_visible_file(file, path)]
    elif path.is_file():
        found = [path]
    else:
        found = [Path(name) for name in glob.glob(source, recursive=True) if Path(name).is_file()]
    found = sorted(path for path in found if path.name.endswith(SUFFIXES))
    if not found:
        raise UsageError(f"source {source!r} matches no file that ends in {', '.join(SUFFIXES)}")
    return found


def _is_visible_file(file: Path, folder: Path) -> bool:
    hidden = any(part.startswith(".") for part in file.relative_to(folder).parts)
    return not hidden and file.is_file()


def _from_file(path: Path, reading: _Reading) -> Iterator[Document]:
    try:
        with _open_text(path) as stream:
            if path.name.removesuffix(".gz").endswith(".jsonl"):
                yield from _from_jsonl(stream, path, reading)
            else:
                blocks = iter(partial(stream.read, reading.maximum_characters), "")
                yield from _documents_of(blocks, str(path), reading)
    except (OSError, EOFError, zlib.error):
        reading.incidents.unreadable_files.append(str(path))


def _open_text(path: Path) -> IO[str]:
    """Bad bytes become lone surrogates, which no good UTF-8 contains, and are found as such."""
    opener = gzip.open if path.suffix == ".gz" else open
    return opener(path, "rt", encoding="utf-8-sig", errors="surrogateescape")


def _from_jsonl(stream: IO[str], path: Path, reading: _Reading) -> Iterator[Document]:
    incidents = reading.incidents
    has_lines = has_key = False
    keys: dict[str, None] = {}
    for number, line in enumerate(stream, start=1):
        if line.isspace():
            continue
        has_lines = True
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            record = None
        if not isinstance(record, dict):
            incidents.bad_json_lines += 1
            continue
        has_key = has_key or reading.text_key in record
        if len(keys) < _KEYS_SHOWN:
            keys |= dict.fromkeys(record)
        text = record.get(reading.text_key)
        if isinstance(text, str):
            yield from _documents_of([text], f"{path}:{number}", reading)
        else:
            incidents.lines_without_text += 1
    if has_lines and not has_key:
        found = ", ".join(list(keys)[:_KEYS_SHOWN]) or "none"
        raise UsageError(f"no line of {path} has the key {reading.text_key!r}; keys found: {found}")


def _from_tfds(texts: Iterable[bytes], source: str, reading: _Reading) -> Iterator[Document]:
    for number, text in enumerate(texts):
        decoded = text.decode("utf-8", errors="surrogateescape")
        yield from _documents_of([decoded], f"{source}:{number}", reading)
