"""Orbax's manager set up for our checkpoints, and a save under way: what it costs training."""

from __future__ import annotations

import dataclasses
import threading
import time
from pathlib import Path

import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import preservation_policy as preserve

from glm_jax.checkpoints.checksums import SummedPyTreeHandler

# The folders of one checkpoint.
STATE_ITEM = "state"
RECORD_ITEM = "record"


@dataclasses.dataclass(frozen=True)
class RetentionPolicy:
    """Which checkpoints stay: the newest so many, and those of steps that `every` divides.

    An `every` of 0 divides none.
    """

    newest: int
    every: int


def open_manager(folder: Path, keep: RetentionPolicy | None) -> ocp.CheckpointManager:
    """The checkpoints of a folder; without `keep` they are only read."""
    options = ocp.CheckpointManagerOptions(create=False)
    if keep is not None:
        policies: list[preserve.PreservationPolicy] = [preserve.LatestN(keep.newest)]
        if keep.every:
            policies.append(preserve.EveryNSteps(keep.every))
        options = ocp.CheckpointManagerOptions(
            preservation_policy=preserve.AnyPreservationPolicy(policies),
            cleanup_tmp_directories=True,
            create=True,
        )
    return ocp.CheckpointManager(folder, options=options, handler_registry=_handlers())


def _handlers() -> ocp.handlers.DefaultCheckpointHandlerRegistry:
    """Who saves and restores which item."""
    registry = ocp.handlers.DefaultCheckpointHandlerRegistry()
    state, record = SummedPyTreeHandler(), ocp.JsonCheckpointHandler()
    for arguments in (ocp.args.PyTreeSave, ocp.args.PyTreeRestore):
        registry.add(STATE_ITEM, arguments, state)
    for arguments in (ocp.args.JsonSave, ocp.args.JsonRestore):
        registry.add(RECORD_ITEM, arguments, record)
    return registry


@dataclasses.dataclass(frozen=True)
class FinishedSave:
    """A checkpoint that is complete.

    Attributes:
      step: the number of steps done when it was taken.
      blocked_seconds: how long training stood still, while the state was copied off the devices.
      complete_seconds: how long it took in all, until the checkpoint could be restored.
    """

    step: int
    blocked_seconds: float
    complete_seconds: float


class Saving:
    """A save from its start on: made when the copy is done, it goes on in the background."""

    def __init__(
        self, manager: ocp.CheckpointManager, step: int, arguments: ocp.args.CheckpointArgs
    ):
        """Starts saving; returns once the state is copied off the devices."""
        self.step = step
        self.error: BaseException | None = None
        self._begin = time.perf_counter()
        try:
            manager.save(step, args=arguments, force=True)
        except Exception as error:
            self.error = error
        self._blocked = self._complete = time.perf_counter() - self._begin
        self._thread = threading.Thread(
            target=self._finish, args=(manager,), name="saving", daemon=True
        )
        self._thread.start()

    def under_way(self) -> bool:
        """Whether it goes on still."""
        return self._thread.is_alive()

    def wait(self) -> None:
        """Returns when it has ended, well or with an error."""
        self._thread.join()

    def finished(self) -> FinishedSave:
        """What it cost, once it has ended well."""
        return FinishedSave(self.step, self._blocked, self._complete)

    def _finish(self, manager: ocp.CheckpointManager) -> None:
        if self.error is None:
            try:
                manager.wait_until_finished()
            except Exception as error:
                self.error = error
        self._complete = time.perf_counter() - self._begin
