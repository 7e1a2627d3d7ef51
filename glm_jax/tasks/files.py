"""The files of a task's folder -> rows."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath

from glm_jax.errors import UsageError

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
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise UsageError(f"{path}, line {number}: no JSON object: {error.msg}") from error
        if not isinstance(row, dict):
            raise UsageError(
                f"{path}, line {number}: expected a JSON object, found {type(row).__name__}"
            )
        rows.append(row)
    return rows


def whole_json(path: epath.Path) -> list[Row]:
    """A file that is one JSON object.

    Raises:
      UsageError: it is not.
    """
    try:
        return [json.loads(read_text(path))]
    except json.JSONDecodeError as error:
        raise UsageError(f"{path}: no JSON object: {error.msg} in line {error.lineno}") from error


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
        {str(column): field for column, field in enumerate(line.split("\t"))}
        for line in lines_of(path)
        if line
    ]


def comma_separated(path: epath.Path) -> list[Row]:
    """Quoted rows without a header, fields named by their number, as text: "0", "1", ..."""
    reader = csv.reader(io.StringIO(read_text(path), newline=""))
    return [{str(column): field for column, field in enumerate(row)} for row in reader if row]


def _row(path: epath.Path, number: int, header: Sequence[str], fields: Sequence[str]) -> Row:
    if len(fields) != len(header):
        raise UsageError(
            f"{path}, line {number}: {len(fields)} fields separated by tabs; "
            f"expected the header's {len(header)}"
        )
    return dict(zip(header, fields, strict=True))
