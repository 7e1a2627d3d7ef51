"""Data sets that TFDS has prepared on this machine -> the rows of the tasks' official files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from glm_jax.errors import UsageError
from glm_jax.io.tfds import plain_examples, prepared_builder
from glm_jax.tasks.files import Fields, Row
from glm_jax.tasks.task import Task
from glm_jax.tasks.tfds_rows import CONVERSIONS

# Names of each split, in the order in which they are looked for.
_SPLITS: Mapping[str, Sequence[str]] = {
    "train": ("train",),
    "dev": ("validation", "dev"),
    "test": ("test",),
}
# As MNLI's two halves are called where one data set has both; and where the dev split is the test
# file, as the original has it.
_SPLITS_OF_TASK: Mapping[str, Mapping[str, Sequence[str]]] = {
    "mnli": {"dev": ("validation_matched", "validation"), "test": ("test_matched", "test")},
    "mnli-mm": {
        "dev": ("validation_mismatched", "validation"),
        "test": ("test_mismatched", "test"),
    },
    **{name: {"dev": ("test",)} for name in ("agnews", "yahoo", "yelp-polarity", "yelp-full")},
    # They have a test split only.
    **{name: dict.fromkeys(("train", "dev", "test"), ("test",)) for name in ("ax-b", "ax-g")},
}


def has_tfds_split(task: Task, source: str, split: str) -> bool:
    """Whether a prepared data set has the split.

    Raises:
      UsageError: as `read_tfds_rows`.
    """
    return _stored_name(prepared_builder(_name(source)), _names(task.name, split)) is not None


def read_tfds_rows(task: Task, source: str, split: str) -> list[Row]:
    """The rows of a split, as the task's official files have them.

    They come in the order of their indices, which is that of the files; where a data set has none,
    in that in which TFDS stored it.

    Args:
      task: of the data.
      source: "tfds:NAME[/CONFIG]"; TFDS_DATA_DIR is where prepared data sets are. Nothing is
        downloaded.
      split: train, dev or test.

    Raises:
      UsageError: there is no such data set or split, it is not prepared, it is not of this task,
        or TFDS is not installed.
    """
    found = stored_rows(source, task.name, split, _names(task.name, split))
    if all("idx" in row for row in found):
        found.sort(key=lambda row: _key(row["idx"]))
    convert = CONVERSIONS.get(task.name)
    return list(found) if convert is None else convert(found)


def stored_rows(
    source: str, task: str, split: str, names: Sequence[str] | None = None
) -> list[Fields]:
    """The rows of a split, in the order in which TFDS stored them.

    Args:
      source: "tfds:NAME[/CONFIG]".
      task: name of the task, for messages.
      split: of the task.
      names: names of the split that are looked for in the data set, the first one first; the
        usual ones of the split by default.

    Raises:
      UsageError: there is no such data set or split, it is not prepared, or TFDS is not installed.
    """
    builder = prepared_builder(_name(source))
    name = _stored_name(builder, names or _SPLITS.get(split, (split,)))
    if name is None:
        raise UsageError(
            f"{source} has no split for {split!r} of task {task}; "
            f"splits found: {', '.join(builder.info.splits)}"
        )
    return [
        Fields(example, f"{source}, split {name}, example {number}")
        for number, example in enumerate(plain_examples(builder, name))
    ]


def _name(source: str) -> str:
    return source.partition(":")[2]


def _names(task: str, split: str) -> Sequence[str]:
    return _SPLITS_OF_TASK.get(task, {}).get(split) or _SPLITS.get(split, (split,))


def _stored_name(builder: Any, names: Sequence[str]) -> str | None:
    return next((name for name in names if name in builder.info.splits), None)


def _key(index: Any) -> tuple[int, ...]:
    """The order of an index: a number, or the numbers of passage, question and answer."""
    if not isinstance(index, Mapping):
        return (index,)
    names = ("passage", "paragraph", "query", "question", "answer")
    return tuple(index[name] for name in names if name in index)
