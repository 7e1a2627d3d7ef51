"""Orbax's manager set up for our checkpoints, and the times of a save in the background."""

from __future__ import annotations

import dataclasses
import functools
import logging
import sys
import time
from collections.abc import Callable, Iterable
from types import TracebackType

import orbax.checkpoint as ocp
from etils import epath
from orbax.checkpoint.checkpoint_managers import preservation_policy as preserve

from glm_jax.checkpoints.checksums import SummedPyTreeHandler
from glm_jax.checkpoints.record import RECORD_ITEM, STATE_ITEM


@dataclasses.dataclass(frozen=True)
class RetentionPolicy:
    """Which checkpoints are kept.

    Attributes:
      newest: number of newest checkpoints.
      every: checkpoints of steps that this divides are kept too; 0 for none.
      best: gives the step of one more that is kept, None for none.
    """

    newest: int
    every: int
    best: Callable[[], int | None] | None = None

    def superseded(self, steps: Iterable[int]) -> list[int]:
        """The steps, in order, whose checkpoints are not kept where there is one of each."""
        ordered, best = sorted(steps), self.best and self.best()
        older = ordered[: -self.newest]
        return [s for s in older if s != best and not (self.every and s % self.every == 0)]


def open_manager(
    folder: epath.Path, keep: RetentionPolicy | None, on_complete: Callable[[], None]
) -> ocp.CheckpointManager:
    """Opens the checkpoints of a folder.

    Args:
      folder: a local path, or a URL of a scheme that orbax writes to.
      keep: which checkpoints are kept; None opens the folder for reading only.
      on_complete: called in the first process when the files of a save are written.
    """
    options = ocp.CheckpointManagerOptions(create=False)
    if keep is not None:
        _silence_repeated_errors()
        options = ocp.CheckpointManagerOptions(
            preservation_policy=_Preserve(keep),
            cleanup_tmp_directories=True,
            create=True,
            async_options=ocp.AsyncOptions(post_finalization_callback=on_complete),
        )
    return ocp.CheckpointManager(folder, options=options, handler_registry=_handlers())


@dataclasses.dataclass
class _Preserve(preserve.PreservationPolicy):
    """A retention policy as orbax asks for it after every save."""

    keep: RetentionPolicy

    def should_preserve(self, checkpoints, *, context) -> list[bool]:
        """For each checkpoint, whether it is kept."""
        superseded = self.keep.superseded(checkpoint.step for checkpoint in checkpoints)
        return [checkpoint.step not in superseded for checkpoint in checkpoints]


@functools.cache
def _silence_repeated_errors() -> None:
    """Keeps off the terminal what orbax and asyncio print when a save fails.

    The failure itself is raised by the manager. They print it too, with tracebacks: once in orbax's
    log, and once for every other write of the same save, whose event loop has ended.
    """
    show = sys.excepthook

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if not (kind is RuntimeError and str(error) == "Event loop is closed"):
            show(kind, error, trace)

    sys.excepthook = hook
    logging.getLogger("absl").addFilter(lambda record: "/orbax/" not in record.pathname)
    logging.getLogger("asyncio").addFilter(
        lambda record: "exception was never retrieved" not in record.getMessage()
    )


def _handlers() -> ocp.handlers.DefaultCheckpointHandlerRegistry:
    """The handler of each item."""
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
      blocked_seconds: how long training was blocked, while the state was copied off the devices.
      complete_seconds: total time, until all files of the checkpoint were written.
    """

    step: int
    blocked_seconds: float
    complete_seconds: float


@dataclasses.dataclass
class PendingSave:
    """A save whose files are written in the background.

    Attributes:
      step: the number of steps done when it was taken.
      start: when it began, by `time.perf_counter`.
      blocked: when the state was copied off the devices.
      complete: when its last file was written; None before, and in all processes but the first.
    """

    step: int
    start: float
    blocked: float | None = None
    complete: float | None = None

    def note_complete(self) -> None:
        """Called by orbax when all files are written."""
        self.complete = time.perf_counter()

    def finished(self) -> FinishedSave:
        """Its times, once orbax has confirmed it."""
        now = time.perf_counter()
        blocked, complete = self.blocked or now, self.complete or now
        complete = max(complete, blocked)  # a small state is written before `save` returns
        return FinishedSave(self.step, blocked - self.start, complete - self.start)
