"""Small sweeps of runs of seconds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from glm_jax.configure import read_sweep
from glm_jax.sweeps.plan import Plan


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
