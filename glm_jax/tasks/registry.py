"""All tasks by name."""

from __future__ import annotations

import difflib
from collections.abc import Mapping

from glm_jax.errors import UsageError
from glm_jax.tasks.catalog import (
    boolq,
    clue,
    copa,
    entailment,
    glue,
    multirc,
    reading,
    record,
    topics,
    wic,
    wsc,
)
from glm_jax.tasks.task import Task

_MODULES = (copa, wsc, entailment, wic, multirc, boolq, record, glue, topics, reading, clue)
TASKS: Mapping[str, Task] = {task.name: task for module in _MODULES for task in module.TASKS}


def find_task(task: str | Task) -> Task:
    """The task of this name.

    Raises:
      UsageError: there is none.
    """
    if isinstance(task, Task):
        return task
    if task not in TASKS:
        near = difflib.get_close_matches(task, TASKS, 1)
        hint = f"; did you mean {near[0]}?" if near else f"; there are {', '.join(TASKS)}"
        raise UsageError(f"there is no task {task!r}{hint}")
    return TASKS[task]
