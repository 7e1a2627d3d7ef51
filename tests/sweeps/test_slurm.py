"""The Slurm backend, against a real Slurm of one node; skipped where slurm-wlm is missing."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from glm_jax.configure import read_sweep
from glm_jax.errors import RunError
from glm_jax.sweeps.plan import Plan
from glm_jax.sweeps.queue import Slurm
from glm_jax.sweeps.run import run_sweep
from tests.sweeps.slurm_cluster import missing_programs, slurm_cluster
from tests.sweeps.traces import starts, steps_of

pytestmark = pytest.mark.skipif(
    bool(missing_programs()) or os.geteuid() != 0,
    reason="no Slurm here: needs Debian's slurm-wlm and munge, and root to start them",
)
STAND_IN = Path(__file__).with_name("stand_in.py")
BACKEND = ("sweep.backend = 'slurm'", "sweep.parallel = 2")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Mapping[str, str]]:
    """The environment of the commands of a running cluster."""
    folder = Path(tempfile.mkdtemp(prefix="slurm", dir="/tmp"))
    try:
        with slurm_cluster(folder, cpus=2) as environment:
            yield environment
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def with_command(cluster, tmp_path, process_environment) -> Callable[[str], dict[str, str]]:
    """The cluster's environment with some program as `glm-jax`."""

    def make(program: str) -> dict[str, str]:
        folder = tmp_path / "commands"
        folder.mkdir()
        (folder / "glm-jax").write_text(f'#!/bin/sh\nexec {program} "$@"\n')
        (folder / "glm-jax").chmod(0o755)
        path = f"{folder}:{cluster['PATH']}"
        return {**process_environment(1), "SLURM_CONF": cluster["SLURM_CONF"], "PATH": path}

    return make


@pytest.fixture
def with_stand_in(with_command) -> dict[str, str]:
    """The cluster's environment with the stand-in for the runs."""
    return with_command(f"{sys.executable} -S {STAND_IN}")


def run(file: Path, environment: Mapping[str, str]) -> list[str]:
    sweep, bound = read_sweep([file])
    plan = Plan(sweep, bound, str(file), None)
    lines: list[str] = []
    try:
        run_sweep(plan, Slurm(plan, environment, poll_seconds=0.5), lines.append)
    except RunError as error:
        lines.append(str(error))
    return lines


def test_trials_run_as_jobs_and_failures_are_recorded(write_sweep, with_stand_in, tmp_path):
    rates = "sweep.choices = {'optimizer.learning_rate': (1e-3, 5.0, 1e-2)}"
    lines = run(write_sweep(rates, *BACKEND), with_stand_in)
    assert lines[-1] == (
        "1 of 3 trials failed: learning_rate=5: step 1: loss nan; update skipped"
    ), lines
    assert sum(line.startswith("finished") for line in lines) == 2
    names = sorted(name for name, _ in starts(tmp_path / "sweep"))
    assert names == ["learning_rate=0.001", "learning_rate=0.01", "learning_rate=5"]
    logs = list((tmp_path / "sweep" / "logs").glob("learning_rate=5-*.log"))
    assert len(logs) == 1


@pytest.mark.slow
def test_a_job_that_is_cancelled_is_submitted_again(write_sweep, with_stand_in, tmp_path):
    environment = {**with_stand_in, "STAND_IN_STEP_SECONDS": "0.3"}
    file = write_sweep("sweep.seeds = (1,)", "train.num_steps = 20", *BACKEND)
    driver = start_driver(file, environment)
    folder = tmp_path / "sweep" / "trials" / "seed=1"
    wait_for(lambda: len(steps_of(folder)) > 3, driver)
    subprocess.run(["scancel", "--signal=KILL", "--full", "--me"], env=environment, check=True)
    output, _ = driver.communicate(timeout=200)
    assert driver.returncode == 0, output
    assert "restarting seed=1" in output
    assert steps_of(folder) == list(range(1, 21))


@pytest.mark.slow
def test_jobs_outlive_their_driver_and_the_next_one_finds_them(
    write_sweep, with_stand_in, tmp_path
):
    environment = {**with_stand_in, "STAND_IN_STEP_SECONDS": "0.5"}
    file = write_sweep("sweep.seeds = (1, 2, 3)", "train.num_steps = 30", *BACKEND)
    driver = start_driver(file, environment)
    folders = [tmp_path / "sweep" / "trials" / f"seed={seed}" for seed in (1, 2, 3)]
    wait_for(lambda: all(len(steps_of(folder)) > 2 for folder in folders[:2]), driver)
    driver.kill()
    driver.communicate()
    driver = start_driver(file, environment)
    output, _ = driver.communicate(timeout=300)
    assert driver.returncode == 0, output
    assert "found      seed=1, still running" in output
    assert sorted(starts(tmp_path / "sweep")) == [("seed=1", 0), ("seed=2", 0), ("seed=3", 0)]
    for folder in folders:
        assert steps_of(folder) == list(range(1, 31))


@pytest.mark.slow
def test_a_real_run_as_a_job(write_sweep, with_command, tmp_path):
    environment = with_command(f"{sys.executable} -m glm_jax")
    driver = start_driver(write_sweep("sweep.seeds = (1,)", *BACKEND), environment)
    output, _ = driver.communicate(timeout=600)
    assert driver.returncode == 0, output
    assert steps_of(tmp_path / "sweep" / "trials" / "seed=1") == [1, 2, 3, 4, 5, 6]


def start_driver(file: Path, environment: Mapping[str, str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "glm_jax", "sweep", "run", str(file)],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def wait_for(condition, driver: subprocess.Popen[str], seconds: float = 120) -> None:
    """Waits until a condition was true once."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert driver.poll() is None, "the driver has ended"
        assert time.monotonic() < deadline, "nothing happens"
        time.sleep(0.1)
