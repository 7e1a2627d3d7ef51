"""The progress of each process of a run, in a small file in the run folder."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import socket
import threading
import time
from collections.abc import Sequence
from contextlib import suppress

from glm_jax.errors import UsageError
from glm_jax.io.files import write_file
from glm_jax.io.paths import resolve_path

FOLDER = "heartbeats"
PERIOD_SECONDS = 5.0
# A file that is older than this belongs to a process that has ended or hangs.
SILENT_SECONDS = 30.0


@dataclasses.dataclass(frozen=True)
class ProcessStatus:
    """What a process last reported.

    Attributes:
      process: its number.
      host: name of its host.
      started: the last step that it dispatched to its devices.
      finished: the last step whose results it received.
      doing: "training", "evaluating", "saving" or "ended".
      time: of the report, in seconds since 1970 by its host's clock.
    """

    process: int
    host: str
    started: int
    finished: int
    doing: str
    time: float

    def describe(self, now: float) -> str:
        """One line of text; `now` is in seconds since 1970."""
        return (
            f"process {self.process} on {self.host}: {self.doing}, step {self.started} started, "
            f"{self.finished} finished, reported {max(now - self.time, 0):.0f} s ago"
        )


class Heartbeat:
    """Writes this process's file every few seconds while it is entered."""

    def __init__(
        self,
        run_folder: str | os.PathLike[str],
        process: int,
        first_step: int,
        period: float = PERIOD_SECONDS,
    ):
        self._path = (
            resolve_path(run_folder, "train.run_folder") / FOLDER / f"process_{process:05d}.json"
        )
        self._process = process
        self._host = socket.gethostname()
        self._period = period
        self._started = self._finished = first_step
        self._doing = "training"
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._write_regularly, name="heartbeat", daemon=True)

    def __enter__(self) -> Heartbeat:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._write()
        self._thread.start()
        return self

    def __exit__(self, *_error) -> None:
        self._closing.set()
        self._thread.join()
        self._doing = "ended"
        self._write()

    def before_step(self, step: int) -> None:
        """A step is dispatched to the devices."""
        self._started, self._doing = step, "training"

    def after_step(self, step: int) -> None:
        """A step's results have been received."""
        self._finished = step

    def doing(self, what: str) -> None:
        """The process does something other than training."""
        self._doing = what

    def _write_regularly(self) -> None:
        while not self._closing.wait(self._period):
            self._write()

    def _write(self) -> None:
        status = ProcessStatus(
            self._process, self._host, self._started, self._finished, self._doing, time.time()
        )
        with suppress(OSError):  # a full disk is reported when a checkpoint is saved
            write_file(self._path, (json.dumps(dataclasses.asdict(status)) + "\n").encode())


def read_heartbeats(run_folder: str | os.PathLike[str]) -> list[ProcessStatus]:
    """The last report of each process of a run, by process number.

    Raises:
      UsageError: the run has none, or a file cannot be read as one.
    """
    folder = resolve_path(run_folder, "RUN_FOLDER") / FOLDER
    files = folder.iterdir() if folder.is_dir() else []
    paths = sorted(path for path in files if re.fullmatch(r"process_\d+\.json", path.name))
    if not paths:
        raise UsageError(f"{run_folder} holds no heartbeats; expected a run folder")
    statuses = []
    for path in paths:
        try:
            statuses.append(ProcessStatus(**json.loads(path.read_text())))
        except (OSError, ValueError, TypeError) as error:
            raise UsageError(f"{path} is not a heartbeat file: {error}") from error
    return statuses


def lagging(statuses: Sequence[ProcessStatus], now: float) -> dict[int, str]:
    """Processes that are silent or behind, by number, with what is wrong.

    All processes work on a step together: the others wait for one that is a step behind.

    Args:
      statuses: of all processes.
      now: in seconds since 1970.
    """
    furthest = max(status.started for status in statuses)
    notes: dict[int, list[str]] = {}
    for status in statuses:
        if status.doing != "ended" and now - status.time > SILENT_SECONDS:
            notes.setdefault(status.process, []).append("SILENT")
        if status.started < furthest:
            notes.setdefault(status.process, []).append(
                f"{furthest - status.started} step(s) BEHIND"
            )
    return {process: ", ".join(texts) for process, texts in notes.items()}
