"""What a finetuning run records of itself: its task, and which of its checkpoints is the best."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

from etils import epath

from glm_jax.errors import UsageError
from glm_jax.finetune.history import best_step_of
from glm_jax.finetune.seeds import check_folder
from glm_jax.train.run_folder import CONFIGURATION_FILE, JSON_FILE


def run_folder_of(checkpoint: epath.Path) -> epath.Path | None:
    """The run folder that a checkpoint is, or is a step of; None for other checkpoints."""
    candidates = [checkpoint]
    if checkpoint.parent.name == "checkpoints":
        candidates.append(checkpoint.parent.parent)
    files = (CONFIGURATION_FILE, JSON_FILE)
    found = (folder for folder in candidates if all((folder / name).is_file() for name in files))
    return next(found, None)


def recorded_task(checkpoint: epath.Path, section: str) -> str | None:
    """The task that a run folder was finetuned on; None for other checkpoints.

    Args:
      checkpoint: of any kind.
      section: of the configuration that names the task: "task" or "seq2seq".

    Raises:
      UsageError: it has runs of several seeds.
    """
    if checkpoint.is_dir():
        check_folder(checkpoint, seeds=())
    file = checkpoint / JSON_FILE
    recorded: Any = None
    if file.is_file():
        # Other software has files of this name, too.
        with suppress(ValueError):
            recorded = json.loads(file.read_text())
    found = recorded.get(section) if isinstance(recorded, dict) else None
    return found.get("name") if isinstance(found, dict) else None


def best_checkpoint(checkpoint: epath.Path) -> epath.Path:
    """The best checkpoint of a finetuning run; other checkpoints are returned as they are.

    Raises:
      UsageError: it has runs of several seeds, or nothing is there.
    """
    if not checkpoint.exists():
        raise UsageError(f"the checkpoint {checkpoint} does not exist")
    if checkpoint.is_dir():
        check_folder(checkpoint, seeds=())
        step = best_step_of(checkpoint)
        if step is not None:
            return checkpoint / "checkpoints" / str(step)
    return checkpoint
