"""The splits of FewSuperGLUE: 32 examples to learn from, and 32 to choose checkpoints by."""

from __future__ import annotations

import dataclasses

from glm_jax.errors import UsageError
from glm_jax.tasks.files import JSON_LINES
from glm_jax.tasks.task import Task

PUBLISHED_AT = "https://github.com/timoschick/fewglue"
# SuperGLUE's dev split, which has labels, is what models are compared on.
FILES = {
    "train": ("train.jsonl",),
    "dev": ("dev32.jsonl",),
    "test": ("val.jsonl",),
    "unlabeled": ("unlabeled.jsonl",),
}


def few_shot_task(task: Task) -> Task:
    """The task with the splits of FewSuperGLUE.

    Raises:
      UsageError: it is not a task of SuperGLUE.
    """
    if task.files is not JSON_LINES:
        raise UsageError(
            f"task {task.name} has no few-shot files; FewSuperGLUE has those of SuperGLUE's tasks"
        )
    return dataclasses.replace(task, files=FILES, published_at=PUBLISHED_AT)
