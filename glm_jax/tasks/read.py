"""A task's folder -> examples of a split."""

from __future__ import annotations

from etils import epath

from glm_jax.errors import UsageError
from glm_jax.io.paths import resolve_path
from glm_jax.tasks.example import Example
from glm_jax.tasks.registry import find_task
from glm_jax.tasks.task import Row, Task


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
      folder: has the task's official files.
      split: train, dev or test; FewSuperGLUE has unlabeled too.
      cloze: WSC: whether blanks are filled; training then drops texts that name a wrong
        antecedent.
      for_loss: ReCoRD: an example per answer in place of one per question, as in training.

    Raises:
      UsageError: there is no such task, split or file, or a row lacks a field.
    """
    task = find_task(task)
    rows = read_rows(task, resolve_path(folder, "the task's folder"), split)
    try:
        purpose = "loss" if for_loss else "cloze" if cloze else "classification"
        return task.other_examples.get(purpose, task.examples)(rows, split)
    except KeyError as error:
        raise UsageError(
            f"a row of the split {split} of task {task.name} in {folder} has no field {error}"
        ) from error


def has_split(task: Task, folder: str, split: str) -> bool:
    """Whether the task has this split and its first file is there."""
    resolved = resolve_path(folder, "the task's folder")
    return any(_files(resolved, name) for name in task.files.get(split, ())[:1])


def _files(folder: epath.Path, name: str) -> list[epath.Path]:
    """The files that a name or a pattern matches."""
    found = sorted(folder.glob(name)) if "*" in name else [folder / name]
    return [file for file in found if file.is_file()]


def read_rows(task: Task, folder: epath.Path, split: str) -> list[Row]:
    """The rows of a split's files.

    Raises:
      UsageError: the task has no such split, or a file is missing.
    """
    if split not in task.files:
        raise UsageError(
            f"task {task.name} has no split {split!r}; expected one of {', '.join(task.files)}"
        )
    rows = []
    for name in task.files[split]:
        files = _files(folder, name)
        if not files:
            raise UsageError(
                f"{folder / name} is missing, which task {task.name} needs for its split "
                f"{split}; published at {task.published_at}"
            )
        for file in files:
            rows += task.rows(file)
    return rows
