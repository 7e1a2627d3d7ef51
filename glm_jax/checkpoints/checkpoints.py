"""Checkpoints by orbax: asynchronous, atomic, with checksums and a record of what they hold."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from jaxtyping import PyTree

from glm_jax.checkpoints.async_save import (
    RECORD_ITEM,
    STATE_ITEM,
    FinishedSave,
    RetentionPolicy,
    Saving,
    open_manager,
)
from glm_jax.checkpoints.checksums import find_damage, record_sum
from glm_jax.cluster.agree import any_process, first_message, wait_for_all
from glm_jax.errors import RunError, UsageError

# Names the shapes and axis order of the parameters, so that later layouts can tell them apart.
PARAMETER_LAYOUT = "scanned-1"
# A damaged checkpoint is kept under this name, where nothing takes it for a checkpoint.
DAMAGED = "{}.damaged"


@dataclasses.dataclass(frozen=True)
class CheckpointConfig:
    """When a run is saved: every so many steps, at its end, and when it is asked to stop.

    Attributes:
      every: steps between saves.
      keep: newest checkpoints kept; older ones are deleted.
      keep_every: checkpoints of steps that this divides are kept for good; 0 for none.
    """

    every: int = 1000
    keep: int = 3
    keep_every: int = 0

    def __post_init__(self):
        for name, least in (("every", 1), ("keep", 1), ("keep_every", 0)):
            if getattr(self, name) < least:
                raise UsageError(
                    f"checkpoint.{name} is {getattr(self, name)}; expected at least {least}"
                )


class Checkpoints:
    """The checkpoints of one run folder; leaving it as a context waits for a save under way.

    Raises:
      RunError: on leaving, the last save failed.
    """

    def __init__(self, folder: Path, config: CheckpointConfig | None = None):
        """Opens the folder; without a configuration it is only read."""
        self._folder = folder.resolve()
        keep = None if config is None else RetentionPolicy(config.keep, config.keep_every)
        self._manager = open_manager(self._folder, keep)
        self._saving: Saving | None = None
        self._finished: list[FinishedSave] = []

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if error and jax.process_count() > 1:
            return  # a save needs all processes, and the others may never come to it
        try:
            if error is None:
                self.wait()
        finally:
            with suppress(Exception):  # what became of the last save is told by `wait`
                self._manager.close()

    def latest_step(self) -> int | None:
        """The newest complete checkpoint's step, None where there is none."""
        return self._manager.latest_step()

    def latest_intact_step(self, say: Callable[[str], None]) -> int | None:
        """The newest checkpoint whose files are as they were written; damaged ones are set aside.

        All processes take part: each looks at its share of the files. A damaged checkpoint is
        renamed, never deleted, and `say` tells of it.

        Returns:
          Its step; None where there is no checkpoint at all.

        Raises:
          RunError: every checkpoint is damaged, or was found so at an earlier start.
        """
        while (step := self.latest_step()) is not None:
            folder = self._folder / str(step)
            damage = first_message(_damage(folder))
            if damage is None:
                return step
            aside = _free_name(folder)
            wait_for_all(f"checkpoint {step} is damaged")
            if jax.process_index() == 0:
                folder.rename(aside)
            wait_for_all(f"checkpoint {step} is set aside")
            say(f"checkpoint {folder} is damaged and set aside as {aside.name}: {damage}")
            self._manager.reload()
        damaged = sorted(path.name for path in self._folder.glob(f"{DAMAGED.format('*')}*"))
        if damaged:
            raise RunError(
                f"every checkpoint in {self._folder} is damaged ({', '.join(damaged)}); give the "
                "run a new folder to begin it anew"
            )
        return None

    def save(
        self, step: int, state: PyTree, record: Mapping[str, Any], *, must: bool = True
    ) -> bool:
        """Starts saving and returns once the state is copied off the device.

        All processes take part.

        Args:
          step: the number of steps done.
          state: the train state.
          record: what the checkpoint holds, as JSON values; the layout of parameters is added.
          must: whether to wait where the save before is still under way; otherwise this one is
            left out, so that training goes on.

        Returns:
          Whether the checkpoint of this step is there or under way.

        Raises:
          RunError: the save before failed.
        """
        under_way = self._saving is not None and self._saving.under_way()
        if not must and any_process(under_way):
            return False
        self.wait()
        if self.latest_step() == step:
            return True
        full_record = {"step": step, "parameter_layout": PARAMETER_LAYOUT, **record}
        full_record = json.loads(json.dumps(full_record | {"checksums": True}))
        full_record["record_checksum"] = record_sum(full_record)
        arguments = ocp.args.Composite(
            state=ocp.args.PyTreeSave(state), record=ocp.args.JsonSave(full_record)
        )
        self._saving = Saving(self._manager, step, arguments)
        return True

    def wait(self) -> None:
        """Waits until no save is under way.

        Raises:
          RunError: the last save failed.
        """
        if self._saving is None:
            return
        saving, self._saving = self._saving, None
        saving.wait()
        self._note(saving)

    def finished_saves(self) -> list[FinishedSave]:
        """The saves that have ended since this was last asked.

        Raises:
          RunError: one of them failed.
        """
        if self._saving and not self._saving.under_way():
            self.wait()
        finished, self._finished = self._finished, []
        return finished

    def _note(self, saving: Saving) -> None:
        if saving.error:
            raise RunError(
                f"saving checkpoint {self._folder / str(saving.step)} failed: "
                f"{_first_line(saving.error)}"
            ) from saving.error
        self._finished.append(saving.finished())

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


def _damage(step_folder: Path) -> str | None:
    """What is wrong with this process's share of a checkpoint's files.

    Checkpoints of other making, which say nothing of checksums, are taken as they are.
    """
    try:
        record = _read_any_record(step_folder)
    except RunError as error:
        return str(error)
    expected = record.pop("record_checksum", None)
    if expected is not None and expected != record_sum(record):
        return f"{RECORD_ITEM}/metadata has changed since it was written"
    if not record.get("checksums"):
        return None
    damage = find_damage(step_folder / STATE_ITEM, jax.process_index(), jax.process_count())
    return damage and f"{STATE_ITEM}/{damage}"


def _free_name(step_folder: Path) -> Path:
    aside = step_folder.with_name(DAMAGED.format(step_folder.name))
    number = 2
    while aside.exists():
        aside = step_folder.with_name(f"{DAMAGED.format(step_folder.name)}-{number}")
        number += 1
    return aside


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
    record = _read_any_record(step_folder)
    layout = record.get("parameter_layout")
    if layout != PARAMETER_LAYOUT:
        raise UsageError(
            f"checkpoint {step_folder} has the parameter layout {layout!r}; "
            f"this version reads {PARAMETER_LAYOUT!r}"
        )
    return record


def _read_any_record(step_folder: Path) -> dict[str, Any]:
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
            f"the record of checkpoint {step_folder} can't be read: {_first_line(error)}"
        ) from error


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
