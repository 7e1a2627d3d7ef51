"""What the driver of a sweep needs of the place where trials run."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from glm_jax.sweeps.run_kind import RunKind
from glm_jax.sweeps.trials import Trial

BASE_FILE = "base.gin"
LOGS = "logs"


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

    def begin(self) -> None:
        """Lets it run, now that its record is kept."""
        ...

    def poll(self) -> Ended | None:
        """How it ended; None while it runs."""
        ...

    def stop(self) -> None:
        """Asks it to save and stop."""
        ...


class Backend(Protocol):
    """Where trials run."""

    @property
    def num_slots(self) -> int:
        """How many trials run at a time."""
        ...

    def start(self, trial: Trial, slot: int) -> Job:
        """Prepares a trial's run, which waits for `begin`.

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


def last_message(file: Path) -> str:
    """The last line of a run's standard error, without the name of the command."""
    try:
        lines = [line for line in file.read_text(errors="replace").splitlines() if line.strip()]
    except OSError:
        lines = []
    return lines[-1].strip().removeprefix("glm-jax: ") if lines else ""


def as_line(command: Sequence[str]) -> str:
    """A command as one line that a shell reads back."""
    return shlex.join(command)
