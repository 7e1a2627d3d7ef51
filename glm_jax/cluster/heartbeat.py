"""A small file for each process of a run that tells how far it has come, and how to read them."""

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
class Beat:
    """What a process last told of itself.

    Attributes:
      process: its number.
      host: where it runs.
      started: the step that it last gave to its devices.
      finished: the step whose results it last had back.
      doing: "training", "evaluating", "saving" or "ended".
      time: when it told, in seconds since 1970 by its host's clock.
    """

    process: int
    host: str
    started: int
    finished: int
    doing: str
    time: float

    def describe(self, now: float) -> str:
        """A line for people; `now` is in seconds since 1970."""
        return (
            f"process {self.process} on {self.host}: {self.doing}, step {self.started} begun, "
            f"{self.finished} done, told {max(now - self.time, 0):.0f} s ago"
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
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)

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
        """A step is given to the devices."""
        self._started, self._doing = step, "training"

    def after_step(self, step: int) -> None:
        """A step's results are back."""
        self._finished = step

    def doing(self, what: str) -> None:
        """Something other than training goes on."""
        self._doing = what

    def _beat(self) -> None:
        while not self._closing.wait(self._period):
            self._write()

    def _write(self) -> None:
        beat = Beat(
            self._process, self._host, self._started, self._finished, self._doing, time.time()
        )
        with suppress(OSError):  # a full disk is reported when a checkpoint is saved
            write_file(self._path, (json.dumps(dataclasses.asdict(beat)) + "\n").encode())


def read_heartbeats(run_folder: str | os.PathLike[str]) -> list[Beat]:
    """The last beats of a run's processes, in their order.

    Raises:
      UsageError: the run has none, or a file is none of ours.
    """
    folder = resolve_path(run_folder, "RUN_FOLDER") / FOLDER
    files = folder.iterdir() if folder.is_dir() else []
    paths = sorted(path for path in files if re.fullmatch(r"process_\d+\.json", path.name))
    if not paths:
        raise UsageError(f"{run_folder} holds no heartbeats; expected a run folder")
    beats = []
    for path in paths:
        try:
            beats.append(Beat(**json.loads(path.read_text())))
        except (OSError, ValueError, TypeError) as error:
            raise UsageError(f"{path} is no heartbeat: {error}") from error
    return beats


def lags(beats: Sequence[Beat], now: float) -> dict[int, str]:
    """What is wrong with the processes that are silent or behind, by their number.

    Processes work on a step together, so one that is a step behind is the one that others wait for.

    Args:
      beats: of all processes.
      now: in seconds since 1970.
    """
    furthest = max(beat.started for beat in beats)
    notes: dict[int, list[str]] = {}
    for beat in beats:
        if beat.doing != "ended" and now - beat.time > SILENT_SECONDS:
            notes.setdefault(beat.process, []).append("SILENT")
        if beat.started < furthest:
            notes.setdefault(beat.process, []).append(f"{furthest - beat.started} step(s) BEHIND")
    return {process: ", ".join(texts) for process, texts in notes.items()}
