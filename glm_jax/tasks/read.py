"""A task's data -> examples of a split."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from etils import epath

from glm_jax.errors import UsageError
from glm_jax.io.listing import list_files
from glm_jax.io.paths import resolve_path
from glm_jax.io.tfds import TFDS_PREFIX
from glm_jax.tasks.example import Example
from glm_jax.tasks.files import check_texts, origin_of
from glm_jax.tasks.registry import find_task
from glm_jax.tasks.task import Row, Task

# What reading a row of another form than the task's raises.
_NOT_A_ROW = (AttributeError, IndexError, KeyError, TypeError, ValueError)


def read_examples(
    task: str | Task,
    folder: str,
    split: str,
    *,
    cloze: bool = True,
    for_loss: bool = False,
) -> list[Example]:
    """The examples of a split, in the order of its files.

    Args:
      task: or its name.
      folder: has the task's official files; or a prepared TFDS data set, such as
        "tfds:super_glue/copa".
      split: train, dev or test; FewSuperGLUE has unlabeled too.
      cloze: WSC: whether blanks are filled; training then drops texts that name a wrong
        antecedent.
      for_loss: ReCoRD: an example per answer in place of one per question, as in training.

    Raises:
      UsageError: there is no such task, split or file, a row lacks a field or has one of the wrong
        type, or there are no examples.
    """
    task = find_task(task)
    rows = read_rows(task, folder, split)
    purpose = "loss" if for_loss else "cloze" if cloze else "classification"
    convert = task.other_examples.get(purpose, task.examples)
    for number, row in enumerate(rows):
        try:
            check_texts(row, task.texts, origin_of(row, number))
        except KeyError as error:
            raise UsageError(f"{origin_of(row, number)}: no field {error}") from error
    try:
        examples = convert(rows, split)
    except _NOT_A_ROW as error:
        origin = _first_failing(convert, rows, split)
        raise UsageError(
            f"{origin}: no row of task {task.name}: {type(error).__name__}: {error}"
        ) from error
    if not examples:
        raise UsageError(f"the split {split} of task {task.name} in {folder} has no examples")
    return examples


def read_multiple_choice(source: str) -> list[Example]:
    """Examples of one .jsonl file for multiple choice, or of a folder or glob pattern of them.

    Raises:
      UsageError: there is no such file, or a line lacks a field.
    """
    return read_examples("multichoice", source, "dev")


def _first_failing(convert: Callable[..., list[Example]], rows: Sequence[Row], split: str) -> str:
    for number, row in enumerate(rows):
        try:
            convert([row], split)
        except _NOT_A_ROW:
            return origin_of(row, number)
    return f"the split {split}"


def has_split(task: Task, folder: str, split: str) -> bool:
    """Whether the task has this split and its first file is there."""
    if split not in task.files:
        return False
    if folder.startswith(TFDS_PREFIX):
        # Imported here because TensorFlow is heavy and the files don't need it.
        from glm_jax.tasks.tfds import has_tfds_split

        return has_tfds_split(task, folder, split)
    if task.any_files:
        return True
    resolved = resolve_path(folder, "the task's folder")
    return any(_files(resolved, name) for name in task.files[split][:1])


def _files(folder: epath.Path, name: str) -> list[epath.Path]:
    """The files that a name or a pattern matches."""
    found = sorted(folder.glob(name)) if "*" in name else [folder / name]
    return [file for file in found if file.is_file()]


def read_rows(task: Task, source: str, split: str) -> list[Row]:
    """The rows of a split's files.

    Raises:
      UsageError: the task has no such split, or a file is missing.
    """
    if split not in task.files:
        raise UsageError(
            f"task {task.name} has no split {split!r}; expected one of {', '.join(task.files)}"
        )
    if source.startswith(TFDS_PREFIX):
        from glm_jax.tasks.tfds import read_tfds_rows

        return read_tfds_rows(task, source, split)
    if task.any_files:
        return [row for file in _named_files(task, source) for row in task.rows(file)]
    folder = resolve_path(source, "the task's folder")
    rows = []
    for name in task.files[split]:
        files = _files(folder, name)
        if not files:
            raise UsageError(
                f"{folder / name} is missing, which task {task.name} needs for its split "
                f"{split}" + (f"; published at {task.published_at}" if task.published_at else "")
            )
        for file in files:
            rows += task.rows(file)
    return rows


def _named_files(task: Task, source: str) -> list[epath.Path]:
    """The .jsonl files of a path, folder, pattern or URL.

    Raises:
      UsageError: there are none.
    """
    found = [resolve_path(file.location) for file in list_files(source).files]
    files = [path for path in found if path.suffix == ".jsonl"]
    if not files:
        raise UsageError(
            f"{source} matches no file that ends in .jsonl, which task {task.name} needs"
        )
    return files
