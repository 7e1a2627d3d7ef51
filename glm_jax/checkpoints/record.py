"""The record of a checkpoint: JSON beside the arrays that says what they are."""

from __future__ import annotations

import json
from typing import Any

from etils import epath

from glm_jax.errors import RunError, UsageError

# The subfolders of one checkpoint.
STATE_ITEM = "state"
RECORD_ITEM = "record"
# Identifies the shapes and axis order of the parameters, to distinguish later layouts.
PARAMETER_LAYOUT = "scanned-1"


def find_step(path: epath.Path) -> epath.Path:
    """The folder of one checkpoint: `path` itself, or the newest in it or in its checkpoints/.

    Raises:
      UsageError: no complete checkpoint there.
    """
    if (path / STATE_ITEM).is_dir():
        return path
    folder = path / "checkpoints" if (path / "checkpoints").is_dir() else path
    steps = [step for step in folder.iterdir() if step.name.isdecimal() and step.is_dir()]
    if not steps:
        raise UsageError(f"{folder} holds no complete checkpoint")
    return max(steps, key=lambda step: int(step.name))


def read_record(step_folder: epath.Path) -> dict[str, Any]:
    """The record of the checkpoint in a folder.

    Raises:
      RunError: the record is missing or unreadable.
      UsageError: the checkpoint's parameters are in a layout that this version doesn't read.
    """
    record = read_any_record(step_folder)
    layout = record.get("parameter_layout")
    if layout != PARAMETER_LAYOUT:
        raise UsageError(
            f"checkpoint {step_folder} has the parameter layout {layout!r}; "
            f"this version reads {PARAMETER_LAYOUT!r}"
        )
    return record


def read_any_record(step_folder: epath.Path) -> dict[str, Any]:
    """A record, whatever the layout that it names.

    Raises:
      RunError: it is missing or unreadable.
    """
    try:
        record = json.loads((step_folder / RECORD_ITEM / "metadata").read_text())
        if not isinstance(record, dict):
            raise ValueError("it holds no JSON object")
        return record
    except (OSError, ValueError, RecursionError) as error:
        raise RunError(
            f"the record of checkpoint {step_folder} can't be read: {first_line(error)}"
        ) from error


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or its type."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
