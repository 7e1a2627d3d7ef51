"""The record of a checkpoint: JSON beside the arrays that says what they are."""

from __future__ import annotations

import json
import re
from typing import Any

from etils import epath

from glm_jax.errors import RunError, UsageError
from glm_jax.io.paths import is_url

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
    steps = complete_steps(folder)
    if not steps:
        raise UsageError(f"{folder} holds no complete checkpoint")
    return folder / str(steps[-1])


def complete_steps(folder: epath.Path) -> list[int]:
    """The steps of the complete checkpoints in a folder, ascending; none where there is no folder.

    A local checkpoint gets its name when it is complete. At a URL it is complete once it has its
    record, which is written last.
    """
    if not folder.is_dir():
        return []
    found = (step for step in folder.iterdir() if step.name.isdecimal() and step.is_dir())
    return sorted(
        int(step.name)
        for step in found
        if not is_url(step) or (step / RECORD_ITEM / "metadata").is_file()
    )


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
    """The first line of an error's message, or its type, without the details of TensorStore."""
    line = (str(error).strip() or type(error).__name__).splitlines()[0]
    return re.split(r" \[\w+=", line)[0]
