"""The files of a task's folder -> rows."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from etils import epath

from glm_jax.errors import UsageError
from glm_jax.io.encodings import LONE_SURROGATE

Row = Mapping[str, Any]

SUPERGLUE = "https://super.gluebenchmark.com/tasks"
GLUE = "https://gluebenchmark.com/tasks"
CLUE = "https://github.com/CLUEbenchmark/CLUE"

# Splits of the SuperGLUE tasks; FewSuperGLUE adds the last one.
JSON_LINES = {
    "train": ("train.jsonl",),
    "dev": ("val.jsonl",),
    "test": ("test.jsonl",),
    "unlabeled": ("unlabeled.jsonl",),
}
TSV = {split: (f"{split}.tsv",) for split in ("train", "dev", "test")}
# csv refuses longer fields; this is the largest number that it takes on every platform.
_MAX_CSV_FIELD = 2**31 - 1


class Fields(dict[str, Any]):
    """A row, or an object in one, that knows where it was read.

    Attributes:
      origin: such as "data/train.jsonl, line 3".
    """

    def __init__(self, fields: Mapping[str, Any], origin: str) -> None:
        super().__init__(fields)
        self.origin = origin

    def __missing__(self, name: str) -> Any:
        raise UsageError(f"{self.origin}: no field {name!r}; found {', '.join(self) or 'none'}")


def origin_of(row: Row, number: int) -> str:
    """Where a row was read, or its number from 1 where that is not known."""
    return row.origin if isinstance(row, Fields) else f"row {number + 1}"


def check_texts(row: Row, paths: Sequence[str], origin: str) -> None:
    """Makes sure that fields are texts.

    Args:
      row: or an object in one.
      paths: of fields, such as "passage.questions.question", where lists of objects are gone
        through; `*` is every item of a list ("choices.*").
      origin: of the row.

    Raises:
      UsageError: a field is missing, or is no text.
    """
    for path in paths:
        for value in _values(row, path.split("."), origin):
            if not isinstance(value, str):
                raise UsageError(f"{origin}: the field {path!r} is {_shown(value)}; expected text")


def _values(item: Any, names: Sequence[str], origin: str) -> Iterator[Any]:
    if not names:
        yield item
    elif names[0] == "*":
        for inner in _list(item, origin):
            yield from _values(inner, names[1:], origin)
    elif isinstance(item, list):
        for inner in item:
            yield from _values(inner, names, origin)
    elif isinstance(item, Mapping):
        yield from _values(item[names[0]], names[1:], origin)
    else:
        raise UsageError(f"{origin}: {_shown(item)} has no field {names[0]!r}")


def _list(item: Any, origin: str) -> list[Any]:
    if not isinstance(item, list):
        raise UsageError(f"{origin}: found {_shown(item)}; expected a list")
    return item


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=repr)
    return text if len(text) <= 60 else f"{text[:60]}..."


def read_text(path: epath.Path) -> str:
    """The text of a file, without a byte order mark.

    Raises:
      UsageError: it is not UTF-8.
    """
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(
            f"{path} is not UTF-8 text: {error.reason} at byte {error.start}"
        ) from error


def lines_of(path: epath.Path) -> list[str]:
    """The lines of a file, split at line feeds only, without their ends."""
    lines = read_text(path).split("\n")
    if lines and not lines[-1]:
        lines.pop()
    return [line.removesuffix("\r") for line in lines]


def json_lines(path: epath.Path) -> list[Row]:
    """One JSON object per line; empty lines are skipped.

    Raises:
      UsageError: a line is no JSON object.
    """
    rows = []
    for number, line in enumerate(lines_of(path), 1):
        if not line.strip():
            continue
        rows.append(_json_object(line, f"{path}, line {number}"))
    return rows


def _json_object(text: str, origin: str) -> Row:
    try:
        found = json.loads(text, object_hook=lambda fields: Fields(fields, origin))
    except json.JSONDecodeError as error:
        raise UsageError(f"{origin}: no JSON object: {error.msg} at column {error.colno}") from (
            error
        )
    except RecursionError as error:
        raise UsageError(f"{origin}: no JSON object: nested too deeply") from error
    if not isinstance(found, Fields):
        raise UsageError(f"{origin}: expected a JSON object, found {type(found).__name__}")
    if "\\ud" in text.lower() and LONE_SURROGATE.search(json.dumps(found, ensure_ascii=False)):
        raise UsageError(f"{origin}: a lone surrogate, half of a character, in its text")
    return found


def whole_json(path: epath.Path) -> list[Row]:
    """A file that is one JSON object.

    Raises:
      UsageError: it is not.
    """
    return [_json_object(read_text(path), str(path))]


def tab_separated(path: epath.Path) -> list[Row]:
    """Rows under a header, without quoting.

    Raises:
      UsageError: a row has another number of fields than the header.
    """
    lines = lines_of(path)
    if not lines:
        raise UsageError(f"{path} is empty; expected a header and rows separated by tabs")
    header = lines[0].split("\t")
    return [
        _row(path, number, header, line.split("\t"))
        for number, line in enumerate(lines[1:], 2)
        if line
    ]


def tab_separated_columns(path: epath.Path) -> list[Row]:
    """Rows without a header, fields named by their number, as text: "0", "1", ..."""
    return [
        _numbered(line.split("\t"), f"{path}, line {number}")
        for number, line in enumerate(lines_of(path), 1)
        if line
    ]


def comma_separated(path: epath.Path) -> list[Row]:
    """Quoted rows without a header, fields named by their number, as text: "0", "1", ...

    Raises:
      UsageError: the file is no such table.
    """
    csv.field_size_limit(_MAX_CSV_FIELD)
    reader = csv.reader(io.StringIO(read_text(path), newline=""))
    rows = []
    try:
        for row in reader:
            if row:
                rows.append(_numbered(row, f"{path}, line {reader.line_num}"))
    except csv.Error as error:
        raise UsageError(f"{path}, line {reader.line_num}: {error}") from error
    return rows


def _numbered(fields: Sequence[str], origin: str) -> Row:
    return Fields({str(column): field for column, field in enumerate(fields)}, origin)


def _row(path: epath.Path, number: int, header: Sequence[str], fields: Sequence[str]) -> Row:
    if len(fields) != len(header):
        raise UsageError(
            f"{path}, line {number}: {len(fields)} fields separated by tabs; "
            f"expected the header's {len(header)}"
        )
    return Fields(dict(zip(header, fields, strict=True)), f"{path}, line {number}")
