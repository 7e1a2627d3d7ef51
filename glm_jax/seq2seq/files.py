"""Files of sources and targets -> examples."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from etils import epath

from glm_jax.errors import UsageError
from glm_jax.tasks.example import Example
from glm_jax.tasks.files import Fields, json_lines, lines_of

TextFunction = Callable[[str], str]
Reader = Callable[[epath.Path, str], list[Example]]
# What the files of a split are called.
SPLIT_NAMES: Mapping[str, str] = {"train": "train", "dev": "val", "test": "test"}


def source_files(names: Mapping[str, str] = SPLIT_NAMES) -> Mapping[str, Sequence[str]]:
    """The first file of every split of `line_pairs`."""
    return {split: (f"{name}.source",) for split, name in names.items()}


def line_pairs(
    source_text: TextFunction,
    target_text: TextFunction,
    names: Mapping[str, str] = SPLIT_NAMES,
) -> Reader:
    """Reads `SPLIT.source` and `SPLIT.target`, one text per line."""
    return partial(_read_line_pairs, source_text, target_text, names)


def own_pairs(folder: epath.Path, split: str) -> list[Example]:
    """`SPLIT.jsonl` with `source` and `target`, or the two files of `line_pairs`.

    A test split needs no targets.
    """
    file = folder / f"{SPLIT_NAMES[split]}.jsonl"
    if not file.is_file():
        return _read_line_pairs(str, str, SPLIT_NAMES, folder, split)
    examples = []
    for number, row in enumerate(json_lines(file), 1):
        where = f"{file}, line {number}"
        target = None if row.get("target") is None else _field(row, "target", where)
        if target is None and split != "test":
            raise UsageError(f"{where}: no field 'target', which the split {split} needs")
        examples.append(_example(split, len(examples), _field(row, "source", where), target, where))
    return examples


def stored_pairs(
    source: str, target: str, source_text: TextFunction = str, target_text: TextFunction = str
) -> Callable[[Sequence[Fields], str], list[Example]]:
    """Rows of a TFDS data set with these two features -> examples."""

    def text(row: Fields, name: str) -> str:
        if not isinstance(row[name], str):
            raise UsageError(f"{row.origin}: the field {name!r} is {row[name]!r}; expected text")
        return row[name]

    def examples(rows: Sequence[Fields], split: str) -> list[Example]:
        pairs = [(source_text(text(row, source)), target_text(text(row, target))) for row in rows]
        return [
            _example(split, number, *pair, row.origin)
            for number, (row, pair) in enumerate(zip(rows, pairs, strict=True))
        ]

    return examples


def _field(row: Mapping[str, Any], name: str, where: str) -> str:
    value = row.get(name)
    if not isinstance(value, str):
        raise UsageError(f"{where}: expected text in the field {name!r}, found {value!r}")
    return value


def _read_line_pairs(
    source_text: TextFunction,
    target_text: TextFunction,
    names: Mapping[str, str],
    folder: epath.Path,
    split: str,
) -> list[Example]:
    files = [folder / f"{names[split]}.{end}" for end in ("source", "target")]
    sources = lines_of(existing(files[0]))
    has_targets = split != "test" or files[1].is_file()
    targets = lines_of(existing(files[1])) if has_targets else [None] * len(sources)
    if len(sources) != len(targets):
        raise UsageError(
            f"{files[0]} has {len(sources):,} lines and {files[1]} has {len(targets):,}; each "
            "source needs its target"
        )
    return [
        _example(
            split,
            number,
            source_text(source.strip()),
            None if target is None else target_text(target.strip()),
            f"{files[0]}, line {number + 1}",
        )
        for number, (source, target) in enumerate(zip(sources, targets, strict=True))
    ]


def _example(split: str, number: int, source: str, target: str | None, where: str) -> Example:
    if not source.strip():
        raise UsageError(f"{where}: the source is empty")
    return Example(f"{split}-{number}", source, target)


def joined_lines(text: str) -> str:
    """A text in one line: its stripped lines that are not empty, joined by spaces."""
    return " ".join(line for line in map(str.strip, text.splitlines()) if line)


def existing(file: epath.Path) -> epath.Path:
    """The file.

    Raises:
      UsageError: it is missing.
    """
    if file.is_dir():
        raise UsageError(f"{file} is a folder; expected a file")
    if not file.is_file():
        raise UsageError(f"{file} is missing")
    return file
