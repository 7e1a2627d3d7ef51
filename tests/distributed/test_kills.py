"""Runs that are killed or asked to stop go on exactly where they were."""

import json
import random
import signal
import time

import jax
import numpy as np
import pytest

from glm_jax.loading import load

STEPS = 40
SAVING = [f"--gin.train.num_steps={STEPS}", "--gin.checkpoint.every=2", "--gin.checkpoint.keep=2"]


def command(gin_file, run_folder) -> list[str]:
    return [
        "pretrain",
        f"--gin_file={gin_file}",
        f"--gin.train.run_folder={run_folder}",
        "--gin.model.hidden_dropout=0.1",
        *SAVING,
    ]


def train_steps(run_folder) -> list[int]:
    """Steps logged so far; the last line may be half written."""
    path = run_folder / "metrics.jsonl"
    if not path.exists():
        return []
    lines = [line for line in path.read_text().splitlines() if line.endswith("}")]
    return [r["step"] for r in map(json.loads, lines) if r["kind"] == "train"]


def wait_for_step(process, run_folder, step) -> None:
    while process.poll() is None and max(train_steps(run_folder), default=0) < step:
        time.sleep(0.01)


def assert_same(one, other) -> None:
    for expected, found in zip(
        *(jax.tree.leaves(load(run)[1]) for run in (one, other)), strict=True
    ):
        np.testing.assert_array_equal(np.asarray(expected), np.asarray(found))


@pytest.fixture(scope="module")
def uninterrupted(run_command, write_tiny_run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("uninterrupted")
    gin_file = write_tiny_run(folder)
    finished = run_command(command(gin_file, folder / "run"))
    assert finished.returncode == 0, finished.stderr
    return gin_file, folder / "run"


def kill_and_resume(uninterrupted, start_command, run_command, run_folder, kills, seed) -> None:
    """Kills a run at `kills` random moments, lets it end, and compares all that it leaves."""
    gin_file, whole = uninterrupted
    moments = random.Random(seed)
    killed = 0
    while killed < kills:
        process = start_command(command(gin_file, run_folder))
        begun = max(train_steps(run_folder), default=0)
        wait_for_step(process, run_folder, begun + moments.randint(1, max(1, STEPS // kills)))
        time.sleep(moments.uniform(0, 0.2))  # anywhere inside a step or a save
        process.kill()
        process.communicate()
        killed += 1
    finished = run_command(command(gin_file, run_folder))
    assert finished.returncode == 0, finished.stderr
    assert train_steps(run_folder) == list(range(1, STEPS + 1))
    assert_same(whole, run_folder)
    # What kills left half-written is gone.
    assert sorted(int(path.name) for path in (run_folder / "checkpoints").iterdir()) == [38, 40]


def test_a_killed_run_resumes_exactly(uninterrupted, start_command, run_command, tmp_path):
    kill_and_resume(uninterrupted, start_command, run_command, tmp_path / "run", kills=2, seed=1)


@pytest.mark.slow
def test_a_run_killed_ten_times_resumes_exactly(
    uninterrupted, start_command, run_command, tmp_path
):
    kill_and_resume(uninterrupted, start_command, run_command, tmp_path / "run", kills=10, seed=2)


def test_sigterm_saves_and_exits_with_0(uninterrupted, start_command, run_command, tmp_path):
    gin_file, whole = uninterrupted
    run_folder = tmp_path / "run"
    rare = ["--gin.checkpoint.every=1000"]  # so that only the stop can have saved
    process = start_command([*command(gin_file, run_folder), *rare])
    wait_for_step(process, run_folder, 3)
    process.send_signal(signal.SIGTERM)
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    stopped = int(output.split("stopped after step ")[1].split()[0])
    assert 3 <= stopped < STEPS
    assert [p.name for p in (run_folder / "checkpoints").iterdir() if p.is_dir()] == [str(stopped)]
    finished = run_command([*command(gin_file, run_folder), *rare])
    assert f"going on at step {stopped}" in finished.stdout
    assert_same(whole, run_folder)
