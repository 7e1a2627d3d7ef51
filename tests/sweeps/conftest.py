"""Small sweeps of runs of seconds."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from glm_jax.configure import read_sweep
from glm_jax.errors import RunError
from glm_jax.sweeps.backends import local_backend
from glm_jax.sweeps.devices import Slot
from glm_jax.sweeps.plan import Plan
from glm_jax.sweeps.run import run_sweep

FOLDER = Path(__file__).parent
STAND_IN = (sys.executable, "-S", str(FOLDER / "stand_in.py"))


@pytest.fixture
def write_sweep(write_tiny_run, tmp_path) -> Callable[..., Path]:
    """Writes the gin file of a sweep over the tiny run, with some lines of its own."""

    def write(*lines: str, folder: str = "sweep") -> Path:
        tiny = write_tiny_run(tmp_path)
        path = tmp_path / "sweep.gin"
        own = f"sweep.folder = {str(tmp_path / folder)!r}"
        path.write_text("\n".join([f"include {tiny.name!r}", own, *lines]) + "\n")
        return path

    return write


@pytest.fixture
def make_plan(write_sweep) -> Callable[..., Plan]:
    """The plan of a sweep over the tiny run, on one device."""

    def make(*lines: str, num_devices: int | None = 1) -> Plan:
        path = write_sweep(*lines)
        sweep, bound = read_sweep([path])
        return Plan(sweep, bound, str(path), num_devices)

    return make


@pytest.fixture
def drive(tmp_path) -> Callable[..., list[str]]:
    """Runs the sweep of a file in this process, with the stand-in for the runs; gives its lines."""

    def run(path: Path, *bindings: str, parallel: int = 2, retry_failed: bool = False) -> list[str]:
        sweep, bound = read_sweep([path], bindings)
        plan = Plan(sweep, bound, str(path), 1)
        slots = (Slot({}, frozenset(), 1),) * parallel
        backend = local_backend(plan, slots, os.environ, STAND_IN)
        lines: list[str] = []
        try:
            run_sweep(plan, backend, lines.append, retry_failed=retry_failed)
        except RunError as error:
            lines.append(f"failed: {error}")
        return lines

    return run


@pytest.fixture
def start_driver(process_environment) -> Callable[..., subprocess.Popen[str]]:
    """Starts a driver of a sweep's file as a process, with the stand-in for the runs."""

    def start(path: Path, *bindings: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, str(FOLDER / "drive.py"), str(path), *bindings],
            env=process_environment(1) | {"STAND_IN_STEP_SECONDS": "0.1"},
            cwd=path.parent,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    return start
