"""Documents: clean text of bounded size, and what happened on the way to it."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain

from glm_jax.data.sources.stretches import Shares, runs, split_stretches
from glm_jax.io.encodings import LONE_SURROGATE

MAXIMUM_CHARACTERS = 1 << 20

_NAMES_SHOWN = 10  # of files, to people


@dataclass(frozen=True)
class Document:
    """One document, or one part of a document too long to be handled as one.

    ``origin`` says where it came from, ``num_bytes`` is its size in UTF-8. ``digest`` is a hash of
    the text (of the first part, for every part of a split document): it stays the same wherever
    the document is found and whatever surrounds it. ``split`` is the index of the split that the
    stretches of a document divided between splits belong to; None leaves that to the digest.
    """

    text: str
    origin: str
    num_bytes: int
    digest: bytes
    split: int | None = None


@dataclass
class ReadStats:
    """What happened while documents were read; counted while they are read.

    Empty documents, those that a filter refused, lines that aren't JSON objects, records without
    text and the rest of unreadable files are skipped; bad UTF-8 is replaced by U+FFFD; documents
    longer than the maximum are split, and those that splits share are divided. Files that are no
    sources of text, by their names, are ignored, and counted by kind.
    """

    empty_documents: int = 0
    filtered_documents: int = 0
    documents_with_bad_utf8: int = 0
    split_documents: int = 0
    divided_documents: int = 0
    bad_json_lines: int = 0
    lines_without_text: int = 0
    unreadable_files: list[str] = field(default_factory=list)
    ignored_files: dict[str, int] = field(default_factory=dict)

    def add(self, others: ReadStats) -> None:
        """Add the counts of another piece of the sources too."""
        for name in (item.name for item in dataclasses.fields(self)):
            if name != "ignored_files":
                setattr(self, name, getattr(self, name) + getattr(others, name))
        for kind, number in others.ignored_files.items():
            self.ignored_files[kind] = self.ignored_files.get(kind, 0) + number

    def lines(self) -> list[str]:
        """What happened, for people; what didn't is left out."""
        happened = {name: value for name, value in dataclasses.asdict(self).items() if value}
        return [f"{name.replace('_', ' ')}: {_shown(value)}" for name, value in happened.items()]


def _shown(value: int | list[str] | dict[str, int]) -> str:
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, dict):
        return ", ".join(f"{number:,} {kind}" for kind, number in sorted(value.items()))
    more = [f"and {len(value) - _NAMES_SHOWN:,} more"] if len(value) > _NAMES_SHOWN else []
    return ", ".join([*value[:_NAMES_SHOWN], *more])


@dataclass(frozen=True)
class ReadOptions:
    """How documents are read.

    Attributes:
      text_key: the key of their text.
      maximum_characters: longer ones are split.
      shares: how splits share long documents; None keeps every document in one split.
    """

    text_key: str = "text"
    maximum_characters: int = MAXIMUM_CHARACTERS
    shares: Shares | None = None


def document_of(text: str, origin: str) -> Document:
    """A complete document of clean text."""
    encoded = text.encode()
    return Document(text, origin, len(encoded), hashlib.blake2b(encoded, digest_size=8).digest())


def replace_surrogates(text: str) -> tuple[str, int]:
    """``text`` with U+FFFD for every lone surrogate, which UTF-8 cannot hold, and their number."""
    return LONE_SURROGATE.subn("\ufffd", text)


def documents_of(
    blocks: Iterable[str], origin: str, options: ReadOptions, stats: ReadStats
) -> Iterator[Document]:
    """The parts of one document (one, as a rule), without whitespace around them."""
    digest, num_runs, num_parts, bad_utf8, is_split = b"", 0, 0, False, False
    if options.shares is None:
        texts: Iterable[tuple[int | None, Iterable[str]]] = [(None, blocks)]
    else:
        # The digest of the first stretch: it stays when the document grows.
        stretches = split_stretches(blocks)
        first = next(stretches, "")
        digest = document_of(_clean(first)[0], origin).digest
        texts = runs(chain([first], stretches), options.shares)
    for split, run in texts:
        before = num_parts
        for part in split_text(run, options.maximum_characters):
            text, replaced = _clean(part)
            bad_utf8 = bad_utf8 or replaced > 0
            if text:
                document = document_of(text, origin)
                digest = digest or document.digest
                num_parts += 1
                yield Document(text, origin, document.num_bytes, digest, split)
        num_runs += num_parts > before
        is_split = is_split or num_parts > before + 1
    stats.empty_documents += num_parts == 0
    stats.split_documents += is_split
    stats.divided_documents += num_runs > 1
    stats.documents_with_bad_utf8 += bad_utf8


def _clean(text: str) -> tuple[str, int]:
    """Text without whitespace around it and lone surrogates, and the number of these."""
    text = text.strip()
    # Most text is ASCII, which is a fast check.
    return (text, 0) if text.isascii() else replace_surrogates(text)


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
