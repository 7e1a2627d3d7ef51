"""What the driver of a sweep needs of the place where trials run."""

from __future__ import annotations

import dataclasses
import glob
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from glm_jax.sweeps.run_kind import RunKind
from glm_jax.sweeps.trials import Trial

BASE_FILE = "base.gin"
LOGS = "logs"
PREFIX = "glm-jax: "


@dataclasses.dataclass(frozen=True)
class Ended:
    """How a job ended.

    Attributes:
      code: its exit code, negative for a signal; None where that is not known.
    """

    code: int | None

    @property
    def was_killed(self) -> bool:
        """Whether a signal ended it, rather than the run itself."""
        return self.code is not None and (self.code < 0 or self.code in (137, 143))


class Job(Protocol):
    """A trial's run, started."""

    @property
    def record(self) -> Mapping[str, Any]:
        """By which another driver finds it again."""
        ...

    def proceed(self) -> None:
        """Lets it run, now that its record is kept."""
        ...

    def poll(self) -> Ended | None:
        """How it ended; None while it runs."""
        ...

    def stop(self) -> None:
        """Asks it to save and stop."""
        ...


class Backend(Protocol):
    """Where trials run.

    Attributes:
      is_detached: whether runs continue when their driver stops.
    """

    is_detached: bool

    @property
    def num_slots(self) -> int:
        """How many trials run at a time."""
        ...

    def start(self, trial: Trial, slot: int) -> Job:
        """Prepares a trial's run, which waits for `proceed`.

        Raises:
          RunError: it can't be started.
        """
        ...

    def adopt(self, record: Mapping[str, Any]) -> Job | None:
        """A run that another driver started, None where it is over."""
        ...

    def commands(self, trial: Trial, slot: int) -> str:
        """What `start` would run, for people."""
        ...


def gin_flags(trial: Trial, kind: RunKind, folder: str) -> list[str]:
    """The flags of `glm-jax pretrain` or `finetune` that make the run of a trial.

    Args:
      trial: the trial.
      kind: of its run.
      folder: of the sweep.
    """
    section, name = kind.folder_setting.split(".")
    run_folder = getattr(getattr(trial.config, section), name)
    settings = {**trial.settings, kind.folder_setting: run_folder}
    bindings = [f"--gin.{setting}={value!r}" for setting, value in settings.items()]
    return [f"--gin_file={folder}/{BASE_FILE}", *bindings]


def run_folder_of(trial: Trial, kind: RunKind) -> str:
    """The run folder of a trial, as its configuration has it."""
    section, name = kind.folder_setting.split(".")
    return getattr(getattr(trial.config, section), name)


def log_file(folder: str, trial: Trial, stream: str) -> Path:
    """Where the output of a trial's run goes.

    Args:
      folder: of the sweep.
      trial: the trial.
      stream: "out" or "err".
    """
    return Path(folder) / LOGS / f"{trial.name}.{stream}"


def last_message(folder: str, trial: Trial) -> str:
    """What a trial's run has complained about: its last line, or the last that glm-jax wrote.

    Args:
      folder: of the sweep.
      trial: the trial.
    """
    # Of a queue, each job has a file of its own, with both streams.
    files = [path for path in (Path(folder) / LOGS).glob(f"{glob.escape(trial.name)}[.-]*")]
    files = [path for path in files if path.suffix in (".err", ".log")]
    if not files:
        return ""
    newest = max(files, key=lambda path: path.stat().st_mtime)
    lines = [line for line in newest.read_text(errors="replace").splitlines() if line.strip()]
    own = [line for line in lines if line.startswith(PREFIX)]
    return (own or lines or [""])[-1].strip().removeprefix(PREFIX)
