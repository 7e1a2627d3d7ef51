"""Which tasks have their files in sub-folders of a folder."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from etils import epath

from glm_jax.errors import UsageError
from glm_jax.language_model.tasks import FILES, LANGUAGE_MODEL_TASKS, PUBLISHED_AT
from glm_jax.seq2seq.registry import SEQ2SEQ_TASKS
from glm_jax.tasks.read import has_split
from glm_jax.tasks.registry import TASKS
from glm_jax.tasks.task import Task

# Tasks that share the folder of another one.
_SHARED = {"mnli-mm": "mnli", "wsc1": "wsc", "squad_v1": "squad", "cnn_dm_original": "cnn_dm"}


@dataclass(frozen=True)
class FoundTasks:
    """The tasks that a folder has data of, and the others.

    Attributes:
      data: of every task that is found, in the order of the tasks.
      missing: where the files of the others are published, "" where nobody does.
    """

    data: Mapping[str, str]
    missing: Mapping[str, str]


def find_tasks(folder: epath.Path, split: str) -> FoundTasks:
    """The tasks whose files are in a sub-folder with their name, as "BoolQ" or "cnn_dm".

    Args:
      folder: with the sub-folders.
      split: whose files are looked for, of tasks that have splits.

    Raises:
      UsageError: it is no folder, or has no files of any task.
    """
    if not folder.is_dir():
        raise UsageError(f"--data {folder} is not a folder")
    subfolders = {_plain(path.name): path for path in sorted(folder.iterdir()) if path.is_dir()}
    data, missing = {}, {}
    for task, published_at in _all_tasks().items():
        names = [_plain(name) for name in (task, _SHARED.get(task, task))]
        here = [subfolders[name] for name in dict.fromkeys(names) if name in subfolders]
        found = next(filter(None, (data_in(task, path, split) for path in here)), None)
        if found is None:
            missing[task] = published_at
        else:
            data[task] = found
    if not data:
        raise UsageError(
            f"{folder} has no sub-folder with the files of a task, such as "
            f"{folder / 'boolq' / 'val.jsonl'}"
        )
    return FoundTasks(data, missing)


def data_in(task: str, folder: epath.Path, split: str) -> str | None:
    """The data of a task in its folder; None where they are not there."""
    if task in LANGUAGE_MODEL_TASKS:
        matches = (path for name in FILES[task] for path in sorted(folder.glob(name)))
        file = next((path for path in matches if path.is_file()), None)
        return None if file is None else os.fspath(file)
    if task in SEQ2SEQ_TASKS:
        is_there = SEQ2SEQ_TASKS[task].has_files(folder, split)
    elif TASKS[task].any_files:
        is_there = split in TASKS[task].files and any(folder.glob("*.jsonl"))
    else:
        is_there = has_split(TASKS[task], os.fspath(folder), split)
    return os.fspath(folder) if is_there else None


def _all_tasks() -> dict[str, str]:
    """Where every task is published, but for those that nothing evaluates."""

    def is_evaluated(task: Task) -> bool:
        return bool(task.metrics) and task.name not in SEQ2SEQ_TASKS

    return {
        **{task.name: task.published_at for task in TASKS.values() if is_evaluated(task)},
        **{task.name: task.published_at for task in SEQ2SEQ_TASKS.values()},
        **{task: PUBLISHED_AT[task] for task in LANGUAGE_MODEL_TASKS},
    }


def _plain(name: str) -> str:
    """A name without case and signs, as folders of published files have them in several forms."""
    return "".join(character for character in name.lower() if character.isalnum())
