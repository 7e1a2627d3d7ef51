"""Trials as processes of this machine."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from glm_jax.errors import RunError
from glm_jax.io.processes import is_running, machine, start_of
from glm_jax.sweeps.devices import Slot
from glm_jax.sweeps.jobs import Ended, log_file
from glm_jax.sweeps.prepared import ForkServer
from glm_jax.sweeps.trials import Trial

GLM_JAX = (sys.executable, "-m", "glm_jax")
# Waits for a line before it becomes the command; ends if the driver is gone before that.
GATE = ("/bin/sh", "-c", 'read -r line && exec "$@" < /dev/null', "sh")
CACHE = "compilation_cache"


class LocalJob:
    """A process that this driver started."""

    def __init__(self, process: subprocess.Popen[bytes]):
        self._process = process
        self._record = record_of(process.pid)

    @property
    def record(self) -> Mapping[str, Any]:
        return self._record

    def proceed(self) -> None:
        if self._process.stdin:
            with suppress(OSError):  # it was killed already, which `poll` reports
                self._process.stdin.write(b"\n")
                self._process.stdin.close()

    def poll(self) -> Ended | None:
        code = self._process.poll()
        return None if code is None else Ended(code)

    def stop(self) -> None:
        with suppress(OSError):
            self._process.send_signal(signal.SIGTERM)


class AdoptedJob:
    """A process of this machine that another driver started."""

    def __init__(self, record: Mapping[str, Any]):
        self._record = record

    @property
    def record(self) -> Mapping[str, Any]:
        return self._record

    def proceed(self) -> None:
        """It runs already."""

    def poll(self) -> Ended | None:
        running = is_running(self._record["process"], self._record["started"])
        return None if running else Ended(None)

    def stop(self) -> None:
        if self.poll() is None:
            with suppress(OSError):
                os.kill(self._record["process"], signal.SIGTERM)


class ForkedJob(AdoptedJob):
    """A process that the fork server of this driver started."""

    def __init__(self, server: ForkServer, process: int, gate: int):
        """Args:
        server: which knows how it ends.
        process: its number.
        gate: the other end of its standard input.
        """
        super().__init__(record_of(process))
        self._server = server
        self._gate = gate

    def proceed(self) -> None:
        with suppress(OSError):  # it was killed already, which `poll` reports
            os.write(self._gate, b"\n")
        os.close(self._gate)

    def poll(self) -> Ended | None:
        code = self._server.code_of(self._record["process"])
        if code is not None:
            return Ended(code)
        return None if self._server.is_open else super().poll()


class LocalBackend:
    """Starts trials on this machine, each on its part of the devices and cores."""

    is_detached = False

    def __init__(
        self,
        folder: str,
        slots: Sequence[Slot],
        environment: Mapping[str, str],
        command: Callable[[Trial, int], list[str]],
        start_server: Callable[[], ForkServer] | None = None,
    ):
        """Args:
        folder: where the output of the trials goes.
        slots: what each trial may use.
        environment: of the trials.
        command: what runs a trial on a slot.
        start_server: starts the server that trials are forked from once it is ready; None where
          commands aren't those of `GLM_JAX`.
        """
        self._folder = folder
        self._slots = slots
        self._environment = dict(environment)
        self._command = command
        self._start_server = start_server
        self._server: ForkServer | None = None

    @property
    def num_slots(self) -> int:
        return len(self._slots)

    def start(self, trial: Trial, slot: int) -> LocalJob | ForkedJob:
        output, errors = (log_file(self._folder, trial, name) for name in ("out", "err"))
        command = self._command(trial, slot)
        try:
            output.parent.mkdir(parents=True, exist_ok=True)
            with open(output, "ab") as out, open(errors, "ab") as err:
                forked = self._forked(command, self._slots[slot], out, err)
                return forked or self._executed(command, self._slots[slot], out, err)
        except OSError as error:
            raise RunError(f"trial {trial.name} can't be started: {error}") from error

    def _executed(self, command: list[str], slot: Slot, out: IO[bytes], err: IO[bytes]) -> LocalJob:
        with running_on(slot.cores):
            process = subprocess.Popen(
                [*GATE, *command],
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=err,
                env={**self._environment, **slot.environment},
                start_new_session=True,
            )
        return LocalJob(process)

    def _forked(
        self, command: list[str], slot: Slot, out: IO[bytes], err: IO[bytes]
    ) -> ForkedJob | None:
        """The same from the server; None where there is none, or while it isn't ready."""
        if self._server is None:
            self._server = self._start_server() if self._start_server else None
        if self._server is None or not self._server.is_ready:
            return None
        read, gate = os.pipe()
        with open(read, "rb") as stdin:
            arguments = command[len(GLM_JAX) :]
            streams = (stdin, out, err)
            process = self._server.start(arguments, slot.environment, slot.cores, streams)
        if process is None:
            os.close(gate)
            return None
        return ForkedJob(self._server, process, gate)

    def adopt(self, record: Mapping[str, Any]) -> AdoptedJob | None:
        if record.get("machine") != machine():
            return None  # the run's own lock keeps two apart
        job = AdoptedJob(record)
        return job if job.poll() is None else None

    def commands(self, trial: Trial, slot: int) -> str:
        variables = [f"{n}={value}" for n, value in self._slots[slot].environment.items()]
        command = self._command(trial, slot)
        if command[: len(GLM_JAX)] == list(GLM_JAX):
            command = ["glm-jax", *command[len(GLM_JAX) :]]
        return shlex.join([*variables, *command])


def record_of(process: int) -> dict[str, Any]:
    """By which a process is found again."""
    return {"process": process, "machine": machine(), "started": start_of(process)}


def with_shared_cache(environment: Mapping[str, str], folder: str) -> dict[str, str]:
    """An environment in which all trials share what JAX compiles, unless it says otherwise."""
    return {
        "JAX_COMPILATION_CACHE_DIR": str(Path(folder).absolute() / CACHE),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        **environment,
    }


@contextmanager
def running_on(cores: frozenset[int]) -> Iterator[None]:
    """Lets processes that are started in this block run on these cores only; empty for all."""
    if not cores:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
