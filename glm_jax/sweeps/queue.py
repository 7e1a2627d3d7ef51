"""Trials as jobs of a cluster's queue, which run on without the driver: Slurm and GKE."""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from glm_jax.errors import RunError, UsageError
from glm_jax.sweeps.jobs import LOGS, Ended
from glm_jax.sweeps.launch import dry_run, launch_command, short_digest
from glm_jax.sweeps.plan import Plan
from glm_jax.sweeps.trials import Trial

COMMAND_SECONDS = 120


class QueuedJob:
    """A job of a queue, by its name there."""

    def __init__(self, queue: Queue, name: str):
        self._queue = queue
        self._name = name
        self._next_poll = 0.0

    @property
    def record(self) -> Mapping[str, Any]:
        return {"queue": self._queue.kind, "name": self._name}

    def proceed(self) -> None:
        """It is in the queue already."""

    def poll(self) -> Ended | None:
        if time.monotonic() < self._next_poll:
            return None
        self._next_poll = time.monotonic() + self._queue.poll_seconds
        return self._queue.ended(self._name)

    def stop(self) -> None:
        self._queue.stop(self._name)


class Queue:
    """A cluster's queue, by its commands; a subclass knows which these are."""

    kind = ""
    is_detached = True

    def __init__(self, plan: Plan, environment: Mapping[str, str], poll_seconds: float = 5.0):
        """Args:
        plan: of the sweep.
        environment: of the commands, and of the jobs where the queue passes it on.
        poll_seconds: between looks at a job.
        """
        self.poll_seconds = poll_seconds
        self._plan = plan
        self._environment = dict(environment)

    @property
    def num_slots(self) -> int:
        return self._plan.sweep.parallel

    def start(self, trial: Trial, slot: int) -> QueuedJob:
        Path(self._plan.local_folder, LOGS).mkdir(parents=True, exist_ok=True)
        own = self._own_flags(trial)
        done = self._call(self._command(trial, own))
        if done.returncode:
            reason = (done.stderr or done.stdout).strip().splitlines() or ["without a message"]
            raise RunError(f"{self.kind} refused the job: {reason[-1]}")
        return QueuedJob(self, self._name_of(done.stdout, own))

    def adopt(self, record: Mapping[str, Any]) -> QueuedJob | None:
        if record.get("queue") != self.kind:
            return None
        job = QueuedJob(self, record["name"])
        return None if self.ended(record["name"]) else job

    def commands(self, trial: Trial, slot: int) -> str:
        return dry_run(self._command(trial, self._own_flags(trial)))

    def ended(self, name: str) -> Ended | None:
        """How a job ended; None while it waits or runs."""
        raise NotImplementedError

    def stop(self, name: str) -> None:
        """Asks a job to save and stop."""
        raise NotImplementedError

    def _own_flags(self, trial: Trial) -> dict[str, str]:
        raise NotImplementedError

    def _name_of(self, output: str, own: Mapping[str, str]) -> str:
        raise NotImplementedError

    def _command(self, trial: Trial, own: Mapping[str, str]) -> list[str]:
        plan = self._plan
        return launch_command(plan.sweep, plan.kind, plan.folder, trial, own)

    def _call(self, command: Sequence[str]) -> subprocess.CompletedProcess[str]:
        try:
            return subprocess.run(
                command,
                capture_output=True,
                text=True,
                stdin=subprocess.DEVNULL,
                env=self._environment,
                timeout=COMMAND_SECONDS,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            return subprocess.CompletedProcess(command, 127, "", str(error))


class Slurm(Queue):
    """Each trial is a Slurm job. Jobs of one name follow each other, so that no trial runs twice
    at the same time even if a driver was killed while it submitted one."""

    kind = "slurm"

    def ended(self, name: str) -> Ended | None:
        state = self._call(["squeue", "--noheader", f"--jobs={name}", "--format=%T"])
        if state.returncode and "Invalid job id" not in state.stderr:
            return None  # the controller does not answer: look again
        if state.stdout.strip() and state.stdout.split()[0] not in FINAL_STATES:
            return None
        shown = self._call(["scontrol", "show", "job", name, "--oneliner"]).stdout
        code = re.search(r"\bExitCode=(\d+):(\d+)", shown)
        if code is None:
            return Ended(None)
        return Ended(-int(code[2]) if int(code[2]) else int(code[1]))

    def stop(self, name: str) -> None:
        self._call(["scancel", "--state=PENDING", name])
        self._call(["scancel", "--signal=TERM", name])

    def _own_flags(self, trial: Trial) -> dict[str, str]:
        return {"job_name": str(Path(self._plan.local_folder, LOGS, trial.name))}

    def _name_of(self, output: str, own: Mapping[str, str]) -> str:
        match = re.search(r"Submitted batch job (\d+)", output)
        if match is None:
            raise RunError(f"sbatch printed {output.strip()!r}; expected the number of a job")
        return match[1]


# States of a job that squeue may still show for a while.
FINAL_STATES = (
    "BOOT_FAIL",
    "CANCELLED",
    "COMPLETED",
    "DEADLINE",
    "FAILED",
    "NODE_FAIL",
    "OUT_OF_MEMORY",
    "TIMEOUT",
)


class Gke(Queue):
    """Each trial is a workload of a GKE cluster, made by xpk and watched by kubectl."""

    kind = "gke"

    def ended(self, name: str) -> Ended | None:
        query = "jsonpath={.status.terminalState}"
        state = self._call(["kubectl", "get", "jobset", name, f"--output={query}"])
        if state.returncode:
            return Ended(None) if "NotFound" in state.stderr else None
        return {"Completed": Ended(0), "Failed": Ended(1)}.get(state.stdout.strip())

    def stop(self, name: str) -> None:
        self._call(["kubectl", "delete", "jobset", name, "--wait=false"])

    def _own_flags(self, trial: Trial) -> dict[str, str]:
        # Names of workloads have up to 40 small letters and digits, and are used once.
        digest = short_digest(f"{self._plan.folder}/{trial.name}")
        return {"workload": f"sweep-{digest}-{int(time.time()):x}"}

    def _name_of(self, output: str, own: Mapping[str, str]) -> str:
        return own["workload"]


def check_commands(names: Sequence[str], which: Callable[[str], str | None] = shutil.which) -> None:
    """Makes sure that a cluster's commands are there.

    Raises:
      UsageError: one is not.
    """
    with suppress(StopIteration):
        missing = next(name for name in names if which(name) is None)
        raise UsageError(f"the command {missing} is not on the PATH of this machine")
