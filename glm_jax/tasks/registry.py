"""All tasks by name, and those of users' own files."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import sys
import traceback
from collections.abc import Collection, Mapping
from functools import cache
from pathlib import Path
from types import ModuleType

from glm_jax.errors import UsageError
from glm_jax.io.paths import local_path, resolve_path
from glm_jax.tasks.catalog import (
    boolq,
    clue,
    copa,
    entailment,
    glue,
    multichoice,
    multirc,
    reading,
    record,
    topics,
    wic,
    wsc,
)
from glm_jax.tasks.task import Task

_MODULES = (
    *(copa, wsc, entailment, wic, multirc, boolq, record),
    *(glue, topics, reading, clue, multichoice),
)
TASKS: Mapping[str, Task] = {task.name: task for module in _MODULES for task in module.TASKS}


def find_task(task: str | Task) -> Task:
    """The task of this name, or of a user's own file.

    Args:
      task: a name in `TASKS`; or a Python file ("my_task.py"), or "package.module:", that has a
        `Task` as `TASK` or several as `TASKS`; of several, the one after the colon
        ("my_tasks.py:reviews", "package.module:reviews").

    Raises:
      UsageError: there is none, or the file can't be run.
    """
    if isinstance(task, Task):
        return task
    if task in TASKS:
        return TASKS[task]
    source, _, name = task.rpartition(":") if _names_module(task) else ("", "", "")
    if task.endswith(".py"):
        source, name = task, ""
    if source:
        return _of_module(task, _load(source), name)
    raise unknown_task(task, TASKS)


def unknown_task(task: str, known: Collection[str]) -> UsageError:
    """The refusal of a name, with the names that are like it, or all."""
    near = difflib.get_close_matches(task, known, 3)
    hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(known)}"
    return UsageError(f"there is no task {task!r}; {hint}")


def names_file(task: str) -> bool:
    """Whether a name is that of a user's own file or module, rather than of a task here."""
    return task.endswith(".py") or _names_module(task)


def _names_module(task: str) -> bool:
    return ":" in task and not task.startswith(":")


def _of_module(task: str, module: ModuleType, name: str) -> Task:
    """The task of this name in a module, or its only one."""
    listed = getattr(module, "TASKS", None) or [getattr(module, "TASK", None)]
    found = [item for item in listed if isinstance(item, Task)]
    if len(found) < len(listed):
        raise UsageError(
            f"task {task!r}: {module.__file__} has no glm_jax.tasks.Task as TASK, nor several as "
            "TASKS"
        )
    named = [item for item in found if name in ("", item.name)]
    if len(named) != 1:
        names = ", ".join(item.name for item in found)
        raise UsageError(
            f"task {task!r}: {module.__file__} has the tasks {names}; expected one of them after "
            "a colon"
        )
    return named[0]


@cache
def _load(source: str) -> ModuleType:
    """Runs a Python file, or imports a module."""
    try:
        if not source.endswith(".py"):
            return importlib.import_module(source)
        path = local_path(resolve_path(source, "the file of a task"), "the file of a task")
        if not path.is_file():
            raise UsageError(f"the file of a task, {source}, does not exist")
        # A name that no other module has; dataclasses look their module up by it.
        spec = importlib.util.spec_from_file_location(f"_task_file_{path.stem}", path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module
        spec.loader.exec_module(module)
        return module
    except UsageError:
        raise
    except (Exception, SystemExit) as error:
        raise UsageError(
            f"the task {source} can't be imported: {type(error).__name__}: "
            f"{' '.join(str(error).split())}{_place(error, source)}"
        ) from error


def _place(error: BaseException, source: str) -> str:
    """The line of the user's file that raised, where it did."""
    lines = [
        frame.lineno
        for frame in traceback.extract_tb(error.__traceback__)
        if Path(frame.filename).name == Path(source).name
    ]
    return f" (line {lines[-1]})" if lines else ""
