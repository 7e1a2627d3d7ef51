"""Documents: clean text of bounded size, and what happened on the way to it."""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

MAXIMUM_CHARACTERS = 1 << 20

_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class Document:
    """One document, or one part of a document too long to be handled as one.

    ``origin`` says where it came from, ``num_bytes`` is its size in UTF-8. ``digest`` is a hash of
    the text (of the first part, for every part of a split document): it stays the same wherever
    the document is found and whatever surrounds it.
    """

    text: str
    origin: str
    num_bytes: int
    digest: bytes


@dataclass
class ReadStats:
    """What happened while documents were read; counted while they are read.

    Empty documents, those that a filter refused, lines that aren't JSON objects, records without
    text and the rest of unreadable files are skipped; bad UTF-8 is replaced by U+FFFD; documents
    longer than the maximum are split.
    """

    empty_documents: int = 0
    filtered_documents: int = 0
    documents_with_bad_utf8: int = 0
    split_documents: int = 0
    bad_json_lines: int = 0
    lines_without_text: int = 0
    unreadable_files: list[str] = field(default_factory=list)

    def add(self, others: ReadStats) -> None:
        """Add the counts of another piece of the sources too."""
        for name in (item.name for item in dataclasses.fields(self)):
            setattr(self, name, getattr(self, name) + getattr(others, name))

    def lines(self) -> list[str]:
        """What happened, for people; what didn't is left out."""
        happened = {name: value for name, value in dataclasses.asdict(self).items() if value}
        return [
            f"{name.replace('_', ' ')}: "
            + (f"{value:,}" if isinstance(value, int) else ", ".join(value))
            for name, value in happened.items()
        ]


@dataclass(frozen=True)
class ReadOptions:
    """How documents are read: the key of their text, and how long one may be in characters."""

    text_key: str = "text"
    maximum_characters: int = MAXIMUM_CHARACTERS


def document_of(text: str, origin: str) -> Document:
    """A complete document of clean text."""
    encoded = text.encode()
    return Document(text, origin, len(encoded), hashlib.blake2b(encoded, digest_size=8).digest())


def replace_surrogates(text: str) -> tuple[str, int]:
    """``text`` with U+FFFD for every lone surrogate, which UTF-8 cannot hold, and their number."""
    return _SURROGATE.subn("\ufffd", text)


def documents_of(
    blocks: Iterable[str], origin: str, maximum_characters: int, stats: ReadStats
) -> Iterator[Document]:
    """The parts of one document (one, as a rule), without whitespace around them."""
    digest, parts, bad_utf8 = b"", 0, False
    for part in split_text(blocks, maximum_characters):
        # Most text is ASCII, which is a fast check.
        text, replaced = part.strip(), 0
        if not text.isascii():
            text, replaced = replace_surrogates(text)
        bad_utf8 = bad_utf8 or replaced > 0
        if text:
            document = document_of(text, origin)
            digest = digest or document.digest
            parts += 1
            yield Document(text, origin, document.num_bytes, digest)
    stats.empty_documents += parts == 0
    stats.split_documents += parts > 1
    stats.documents_with_bad_utf8 += bad_utf8


def split_text(blocks: Iterable[str], maximum_characters: int) -> Iterator[str]:
    """Split text that arrives in blocks into parts of at most ``maximum_characters``.

    A part ends after the last empty line of the second half of a part, else after its last newline,
    else after its last space, else anywhere. The parts joined are the text.
    """
    waiting: list[str] = []
    num_waiting = 0
    for block in blocks:
        waiting.append(block)
        num_waiting += len(block)
        if num_waiting <= maximum_characters:
            continue
        rest, start = "".join(waiting), 0
        while len(rest) - start > maximum_characters:
            end = _split_point(rest, start, start + maximum_characters)
            yield rest[start:end]
            start = end
        waiting, num_waiting = [rest[start:]], len(rest) - start
    if num_waiting:
        yield "".join(waiting)


def _split_point(text: str, start: int, end: int) -> int:
    middle = (start + end) // 2
    for mark in ("\n\n", "\n", " "):
        found = text.rfind(mark, middle, end)
        if found >= 0:
            return found + len(mark)
    return end
