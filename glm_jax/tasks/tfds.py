"""Data sets that TFDS has prepared on this machine -> the rows of the tasks' official files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from glm_jax.errors import UsageError
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
    return _split_name(task, _builder(source), split) is not None


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
    builder = _builder(source)
    name = _split_name(task, builder, split)
    if name is None:
        raise UsageError(
            f"{source} has no split for {split!r} of task {task.name}; "
            f"splits found: {', '.join(builder.info.splits)}"
        )
    features = builder.info.features
    found = [
        Fields(_plain(example, features), f"{source}, split {name}, example {number}")
        for number, example in enumerate(_examples(builder, name))
    ]
    if all("idx" in row for row in found):
        found.sort(key=lambda row: _key(row["idx"]))
    convert = CONVERSIONS.get(task.name)
    return list(found) if convert is None else convert(found)


def _split_name(task: Task, builder: Any, split: str) -> str | None:
    names = _SPLITS_OF_TASK.get(task.name, {}).get(split) or _SPLITS.get(split, (split,))
    return next((name for name in names if name in builder.info.splits), None)


def _builder(source: str) -> Any:
    """The builder of a prepared data set."""
    name = source.partition(":")[2]
    try:
        import tensorflow as tf
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise UsageError(
            f"{source} needs TensorFlow Datasets; install tensorflow-datasets ({error})"
        ) from error
    for kind in ("GPU", "TPU"):  # the accelerators are JAX's
        tf.config.set_visible_devices([], kind)
    try:
        builder = tfds.builder(name, try_gcs=False)
    except (ValueError, AssertionError) as error:
        raise UsageError(f"TFDS has no data set {name!r}") from error
    if not builder.is_prepared():
        raise UsageError(
            f"TFDS data set {name!r} is not prepared in {builder.data_dir}; run `tfds build {name}`"
            " once, which downloads it, or set TFDS_DATA_DIR to where it is"
        )
    return builder


def _examples(builder: Any, split: str) -> Iterable[Mapping[str, Any]]:
    import tensorflow_datasets as tfds

    # One file after the other: the order of the examples is then fixed.
    config = tfds.ReadConfig(interleave_cycle_length=1)
    return tfds.as_numpy(builder.as_dataset(split=split, shuffle_files=False, read_config=config))


def _key(index: Any) -> tuple[int, ...]:
    """The order of an index: a number, or the numbers of passage, question and answer."""
    if not isinstance(index, Mapping):
        return (index,)
    names = ("passage", "paragraph", "query", "question", "answer")
    return tuple(index[name] for name in names if name in index)


def _plain(value: Any, feature: Any) -> Any:
    """A value of NumPy as one of JSON; classes by their names, missing labels left out."""
    import tensorflow_datasets as tfds

    if isinstance(feature, tfds.features.FeaturesDict):
        inner = {name: _plain(value[name], feature[name]) for name in feature}
        return {name: item for name, item in inner.items() if item is not None}
    if isinstance(feature, tfds.features.ClassLabel):
        return None if value < 0 else feature.int2str(int(value))
    return _of_json(value)


def _of_json(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode("utf-8", errors="replace")
    if isinstance(value, Mapping):
        return {name: _of_json(item) for name, item in value.items()}
    if hasattr(value, "to_list"):  # a ragged tensor
        return _of_json(value.to_list())
    if hasattr(value, "tolist"):
        return _of_json(value.tolist())
    return [_of_json(item) for item in value] if isinstance(value, list | tuple) else value
