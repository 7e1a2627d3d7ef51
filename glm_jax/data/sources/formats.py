"""Which files are sources of text: by their names, and by their content where these leave doubt."""

from __future__ import annotations

import codecs
import json
import re
from enum import Enum
from pathlib import PurePosixPath

from glm_jax.data.sources.compression import (
    BrokenFileError,
    read_blocks,
    without_compression,
)
from glm_jax.errors import UsageError
from glm_jax.io.encodings import foreign_format
from glm_jax.io.listing import Listing, SourceFile, list_files


class Format(Enum):
    """How a file holds its documents: one, one a line, or one a row."""

    TEXT = "text"
    LINES = "lines"
    TABLE = "table"


_FORMATS = {
    ".txt": Format.TEXT,
    ".jsonl": Format.LINES,
    ".ndjson": Format.LINES,
    ".json": Format.LINES,
    ".parquet": Format.TABLE,
}
# Such a file may also hold anything else: in a folder it is read only if its lines have the key.
_DOUBTFUL = ".json"
_MAX_HEAD_BYTES = 1 << 23
KEYS_SHOWN = 12


def format_of(location: str) -> Format | None:
    """The format that a file's name says, in capitals or not; None if it says none."""
    name = without_compression(location)
    found = _FORMATS.get(_suffix(name))
    return None if found is Format.TABLE and name != location else found


def find_files(source: str, formats: tuple[Format, ...], key: str) -> Listing:
    """The files of some formats that a path, URL or glob pattern stands for, sorted.

    What else there is goes into `ignored`, by the ending of its name. A .json file without lines
    that have `key` goes into `broken`, unless it is the source itself.

    Raises:
      UsageError: there are none, or no package that reads this kind of URL is installed.
    """
    listing = list_files(source)
    files: list[SourceFile] = []
    for file in listing.files:
        if format_of(file.location) not in formats:
            listing.ignored[_kind(file.location)] += 1
        elif (reason := None if listing.is_named else _doubt(file.location, key)) is not None:
            listing.broken.append(f"{file.location} ({reason})")
        else:
            files.append(file)
    listing.files = files
    if not files:
        endings = ", ".join(name for name, of_name in _FORMATS.items() if of_name in formats)
        left_out = [f"{number} {kind}" for kind, number in sorted(listing.ignored.items())]
        left_out += listing.broken[:3]
        raise UsageError(
            f"source {source!r} matches no file that ends in {endings}"
            + (f"; ignored: {', '.join(left_out)}" if left_out else "")
        )
    return listing


def wrong_lines(first_line: bytes) -> str | None:
    """What a file is instead of lines of JSON objects; None if its first line doesn't say."""
    if found := foreign_format(first_line):
        return found
    text = first_line.removeprefix(codecs.BOM_UTF8).strip()
    if re.match(rb"\[\s*([{\"]|$)", text):
        return "a JSON array, expected one JSON object a line"
    if text == b"{":
        return "pretty-printed JSON, expected one JSON object a line"
    return None


def json_object(line: bytes, errors: str = "surrogateescape") -> dict | None:
    """The JSON object of a line, or None if it isn't one."""
    try:
        record = json.loads(line.decode("utf-8", errors=errors).removeprefix("\ufeff"))
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None


def _doubt(location: str, key: str) -> str | None:
    """Why a file is no source, though its name may be that of one."""
    if _suffix(without_compression(location)) != _DOUBTFUL:
        return None
    head = bytearray()
    try:
        for block in read_blocks(location):
            head += block
            if b"\n" in block or len(head) >= _MAX_HEAD_BYTES:
                break
    except BrokenFileError as error:
        return str(error)
    lines = bytes(head).lstrip().split(b"\n")
    if found := wrong_lines(lines[0]):
        return found
    records = [json_object(line) for line in lines]
    keys = dict.fromkeys(name for record in records if record for name in record)
    if key in keys:
        return None
    if not keys:
        return "no lines of JSON objects"
    return f"no key {key!r} in its first lines; keys found: {', '.join(list(keys)[:KEYS_SHOWN])}"


def _suffix(location: str) -> str:
    return PurePosixPath(location.lower()).suffix


def _kind(location: str) -> str:
    """The ending of a file's name, with that of its compression."""
    name = without_compression(location)
    return f"{_suffix(name)}{location[len(name) :].lower()}" or "without an ending"
