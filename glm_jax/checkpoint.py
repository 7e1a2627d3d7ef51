"""Checkpoints by orbax: asynchronous, atomic, with a record of what they hold."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from jaxtyping import PyTree

from glm_jax.errors import RunError, UsageError

# Names the shapes and axis order of the parameters, so that later layouts can tell them apart.
PARAMETER_LAYOUT = "scanned-1"
# The folders of one checkpoint.
STATE_ITEM = "state"
RECORD_ITEM = "record"


@dataclasses.dataclass(frozen=True)
class CheckpointConfig:
    """When a run is saved: every so many steps, at its end, and when it is asked to stop.

    Attributes:
      every: steps between saves.
      keep: newest checkpoints kept; older ones are deleted.
    """

    every: int = 1000
    keep: int = 3

    def __post_init__(self):
        for name in ("every", "keep"):
            if getattr(self, name) < 1:
                raise UsageError(f"checkpoint.{name} is {getattr(self, name)}; expected at least 1")


class Checkpoints:
    """The checkpoints of one run folder; leaving it as a context waits for saves under way."""

    def __init__(self, folder: Path, config: CheckpointConfig | None = None):
        """Opens the folder; without a configuration it is only read."""
        options = ocp.CheckpointManagerOptions(create=False)
        if config is not None:
            options = ocp.CheckpointManagerOptions(
                max_to_keep=config.keep, cleanup_tmp_directories=True, create=True
            )
        self._folder = folder.resolve()
        self._manager = ocp.CheckpointManager(self._folder, options=options)

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, *_error) -> None:
        self._manager.close()

    def latest_step(self) -> int | None:
        """The newest complete checkpoint's step, None where there is none."""
        return self._manager.latest_step()

    def save(self, step: int, state: PyTree, record: Mapping[str, Any]) -> None:
        """Starts saving and returns once the state is copied off the device.

        Args:
          step: the number of steps done.
          state: the train state.
          record: what the checkpoint holds, as JSON values; the layout of parameters is added.
        """
        if self.latest_step() == step:
            return
        full_record = {"step": step, "parameter_layout": PARAMETER_LAYOUT, **record}
        self._manager.save(
            step,
            args=ocp.args.Composite(
                state=ocp.args.PyTreeSave(state), record=ocp.args.JsonSave(full_record)
            ),
        )

    def read_record(self, step: int) -> dict[str, Any]:
        """What was recorded with a checkpoint.

        Raises:
          RunError: the record is missing or unreadable.
          UsageError: the checkpoint's parameters are laid out in another way than this version's.
        """
        return read_record(self._folder / str(step))

    def restore(self, step: int, abstract_state: PyTree) -> PyTree:
        """The state saved at `step`, laid out as the shardings of `abstract_state` say.

        Args:
          step: which checkpoint.
          abstract_state: jax.ShapeDtypeStruct leaves with shardings; a part of the saved tree
            suffices (the parameters alone, say).

        Raises:
          RunError: the checkpoint is damaged or holds other shapes.
        """
        arguments = ocp.args.PyTreeRestore(
            item=abstract_state,
            restore_args=ocp.checkpoint_utils.construct_restore_args(abstract_state),
            partial_restore=True,
        )
        try:
            restored = self._manager.restore(step, args=ocp.args.Composite(state=arguments))
        except Exception as error:
            raise RunError(
                f"checkpoint {self._folder / str(step)} can't be restored: {_first_line(error)}"
            ) from error
        return restored["state"]


def find_step(path: Path) -> Path:
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


def read_record(step_folder: Path) -> dict[str, Any]:
    """What was recorded with the checkpoint in a folder.

    Raises:
      RunError: the record is missing or unreadable.
      UsageError: the checkpoint's parameters are laid out in another way than this version's.
    """
    try:
        record = json.loads((step_folder / RECORD_ITEM / "metadata").read_text())
        layout = record.get("parameter_layout")
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        raise RunError(
            f"the record of checkpoint {step_folder} can't be read: {_first_line(error)}"
        ) from error
    if layout != PARAMETER_LAYOUT:
        raise UsageError(
            f"checkpoint {step_folder} has the parameter layout {layout!r}; "
            f"this version reads {PARAMETER_LAYOUT!r}"
        )
    return record


def abstract_with_shardings(shapes: PyTree, shardings: PyTree) -> PyTree:
    """jax.ShapeDtypeStruct leaves that carry where each array goes."""
    return jax.tree.map(
        lambda shape, sharding: jax.ShapeDtypeStruct(shape.shape, shape.dtype, sharding=sharding),
        shapes,
        shardings,
    )


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
