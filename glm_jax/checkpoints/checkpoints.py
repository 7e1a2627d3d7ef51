"""Checkpoints by orbax: asynchronous, atomic, with checksums and a record of what they hold."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import jax
import orbax.checkpoint as ocp
from jaxtyping import PyTree

from glm_jax.checkpoints.async_save import (
    FinishedSave,
    PendingSave,
    RetentionPolicy,
    open_manager,
)
from glm_jax.checkpoints.checksums import record_sum
from glm_jax.checkpoints.config import CheckpointConfig
from glm_jax.checkpoints.damage import DAMAGED, describe_damage, free_name
from glm_jax.checkpoints.location import check_checkpoint_folder
from glm_jax.checkpoints.mirror import Mirror
from glm_jax.checkpoints.record import (
    PARAMETER_LAYOUT,
    first_line,
    read_record,
)
from glm_jax.cluster.agree import any_process, first_message, wait_for_all
from glm_jax.errors import RunError
from glm_jax.io.files import folder_names
from glm_jax.io.paths import is_tensorstore_location


class Checkpoints:
    """The checkpoints of one run folder; leaving it as a context waits for a save in progress.

    Raises:
      RunError: on leaving, the last save failed.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        config: CheckpointConfig | None = None,
        *,
        best: Callable[[], int | None] | None = None,
    ):
        """Opens the folder, a path or URL; without a configuration it is read only.

        `best` gives the step of a checkpoint that is never deleted.

        Raises:
          UsageError: several processes can't write to URLs of this scheme.
        """
        self._folder = check_checkpoint_folder(folder)
        keep = None if config is None else RetentionPolicy(config.keep, config.keep_every, best)
        self._mirror: Mirror | None = None
        # Where orbax writes.
        self._local = self._folder
        if not is_tensorstore_location(self._folder):
            self._mirror = Mirror(self._folder, keep)
            self._local = self._mirror.folder
            keep = keep and RetentionPolicy(newest=1, every=0)
        self._keep = keep
        self._manager = open_manager(self._local, keep, self._files_written)
        self._pending: PendingSave | None = None
        self._finished: list[FinishedSave] = []

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if error and jax.process_count() > 1:
            return  # a save needs all processes, and the others may never reach it
        try:
            if error is None:
                self.wait()
        finally:
            with suppress(Exception):  # `wait` reports a failure of the last save
                self._manager.close()
            if self._mirror:
                self._mirror.close()

    def latest_step(self) -> int | None:
        """The newest complete checkpoint's step, None where there is none."""
        return self._manager.latest_step()

    def latest_intact_step(self, say: Callable[[str], None]) -> int | None:
        """The newest checkpoint whose files are intact; damaged ones are set aside.

        All processes take part: each checks its share of the files. A damaged checkpoint is
        renamed, never deleted, and `say` reports it.

        Returns:
          Its step; None where there is no checkpoint at all.

        Raises:
          RunError: every checkpoint is damaged, or was found so at an earlier start.
        """
        while (step := self.latest_step()) is not None:
            folder = self._folder / str(step)
            damage = first_message(describe_damage(self._local / str(step)))
            if damage is None:
                return step
            aside = free_name(folder)
            wait_for_all(f"checkpoint {step} is damaged")
            if jax.process_index() == 0:
                folder.rename(aside)
            wait_for_all(f"checkpoint {step} is set aside")
            say(f"checkpoint {folder} is damaged and set aside as {aside.name}: {damage}")
            if self._mirror:
                self._mirror.fetch()
            self._manager.reload()
        names = folder_names(self._folder)
        damaged = sorted(name for name in names if DAMAGED.format("") in name)
        if damaged:
            raise RunError(
                f"every checkpoint in {self._folder} is damaged ({', '.join(damaged)}); give the "
                "run a new folder to start it again"
            )
        return None

    def save(
        self, step: int, state: PyTree, record: Mapping[str, Any], *, wait_for_previous: bool = True
    ) -> bool:
        """Starts saving and returns once the state is copied off the device.

        All processes take part.

        Args:
          step: the number of steps done.
          state: the train state.
          record: what the checkpoint holds, as JSON values; the layout of parameters is added.
          wait_for_previous: whether to wait for a previous save that is still in progress;
            otherwise this one is skipped, and training is not blocked.

        Returns:
          Whether the checkpoint of this step exists or is being saved.

        Raises:
          RunError: the previous save or this one failed.
        """
        if not wait_for_previous and any_process(self._is_saving()):
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
        self._pending = PendingSave(step, time.perf_counter())
        with self._failing_as_run_error(step):
            self._manager.save(step, args=arguments, force=True)
            if self._mirror:
                self._mirror.start_upload(step, self._manager.is_saving_in_progress)
        self._pending.blocked = time.perf_counter()
        return True

    def wait(self) -> None:
        """Waits until no save is in progress.

        Raises:
          RunError: the last save failed.
        """
        if self._pending is None:
            return
        pending = self._pending
        with self._failing_as_run_error(pending.step):
            self._manager.wait_until_finished()
            self._manager.check_for_errors()
            if self._mirror:
                self._mirror.wait()
        self._pending = None
        self._finished.append(pending.finished())

    def delete_superseded(self) -> None:
        """Deletes the checkpoints that are not kept, once no save is in progress.

        Every save does so. What a process that ended between a save and its deletions has left, or
        what was kept as the best until the last evaluation, is deleted by this.

        Raises:
          RunError: the last save failed.
        """
        self.wait()
        for step in self._keep.superseded(self._manager.all_steps()) if self._keep else ():
            self._manager.delete(step)
        if self._mirror:
            self._mirror.delete_superseded()

    def finished_saves(self) -> list[FinishedSave]:
        """The saves that have finished since the last call.

        Raises:
          RunError: one of them failed.
        """
        if not self._is_saving():
            self.wait()
        finished, self._finished = self._finished, []
        return finished

    def _files_written(self) -> None:
        if self._pending:
            self._pending.note_complete()

    def _is_saving(self) -> bool:
        uploading = self._mirror is not None and self._mirror.uploading
        return uploading or self._manager.is_saving_in_progress()

    @contextmanager
    def _failing_as_run_error(self, step: int) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            self._pending = None
            raise RunError(
                f"saving checkpoint {self._folder / str(step)} failed: {first_line(error)}"
            ) from error

    def read_record(self, step: int) -> dict[str, Any]:
        """The record saved with a checkpoint.

        Raises:
          RunError: the record is missing or unreadable.
          UsageError: the checkpoint's parameters are in a layout that this version doesn't read.
        """
        return read_record(self._local / str(step))

    def restore(self, step: int, abstract_state: PyTree) -> PyTree:
        """The state saved at `step`, with the shardings of `abstract_state`.

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
                f"checkpoint {self._folder / str(step)} can't be restored: {first_line(error)}"
            ) from error
        return restored["state"]
