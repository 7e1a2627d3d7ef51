"""Runs that are killed or asked to stop go on exactly where they were."""

import json
import random
import signal
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from glm_jax.cli.main import main
from glm_jax.convert.load import load
from glm_jax.io.lock import LOCK_FILE

STEPS = 40


def command(gin_file, run_folder, steps=STEPS) -> list[str]:
    return [
        "pretrain",
        f"--gin_file={gin_file}",
        f"--gin.train.run_folder={run_folder}",
        f"--gin.train.num_steps={steps}",
        "--gin.model.hidden_dropout=0.1",
        "--gin.checkpoint.every=2",
        "--gin.checkpoint.keep=2",
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
def uninterrupted(write_tiny_run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("uninterrupted")
    gin_file = write_tiny_run(folder)
    assert main(command(gin_file, folder / "run")) == 0
    return gin_file, folder / "run"


def assert_two_checkpoints(run_folder, last=STEPS) -> None:
    """The last two saves are there, and what kills left half-written is gone.

    The one before the last may be of any step: saves that are due too soon are left out.
    """
    steps = sorted(int(path.name) for path in (run_folder / "checkpoints").iterdir())
    assert len(steps) == 2 and steps[1] == last


def kill_and_resume(uninterrupted, start_command, run_here, run_folder, kills, seed) -> None:
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
    finished = run_here(command(gin_file, run_folder))
    assert finished.returncode == 0, finished.stderr
    assert train_steps(run_folder) == list(range(1, STEPS + 1))
    assert_same(whole, run_folder)
    assert_two_checkpoints(run_folder)


def test_a_killed_run_resumes_exactly(uninterrupted, start_command, run_here, tmp_path):
    kill_and_resume(uninterrupted, start_command, run_here, tmp_path / "run", kills=1, seed=1)


@pytest.mark.slow
def test_a_run_killed_ten_times_resumes_exactly(uninterrupted, start_command, run_here, tmp_path):
    kill_and_resume(uninterrupted, start_command, run_here, tmp_path / "run", kills=10, seed=2)


@pytest.mark.slow  # tests/launch has the same for a run of several processes
def test_sigterm_saves_and_exits_with_0(uninterrupted, start_command, run_here, tmp_path):
    gin_file, whole = uninterrupted
    run_folder = tmp_path / "run"
    rare = ["--gin.checkpoint.every=1000"]  # so that only the stop can have saved
    process = start_command([*command(gin_file, run_folder), *rare])
    wait_for_step(process, run_folder, 3)
    process.send_signal(signal.SIGTERM)
    output, errors = process.communicate(timeout=900)
    assert process.returncode == 0, errors
    assert not (run_folder / LOCK_FILE).exists()
    stopped = int(output.split("stopped after step ")[1].split()[0])
    assert 3 <= stopped < STEPS
    assert [p.name for p in (run_folder / "checkpoints").iterdir() if p.is_dir()] == [str(stopped)]
    finished = run_here([*command(gin_file, run_folder), *rare])
    assert f"resuming from step {stopped}" in finished.stdout
    assert_same(whole, run_folder)


CALM = ["--gin.model.hidden_dropout=0.0"]  # random numbers may be drawn per device
RELATIVE = 1e-5  # float32 sums in another order


@pytest.fixture(scope="module")
def undisturbed(write_tiny_run, start_processes, tmp_path_factory):
    """A run of some steps and processes that nothing happens to: its gin file and losses."""

    def run(steps: int, count: int) -> tuple[Path, list[float]]:
        folder = tmp_path_factory.mktemp("undisturbed")
        gin_file = write_tiny_run(folder)
        arguments = [*command(gin_file, folder / "run", steps), *CALM]
        if count == 1:
            assert main(arguments) == 0
        else:
            processes = start_processes(arguments, count)
            ended = [process.communicate(timeout=900) for process in processes]
            assert not any(process.returncode for process in processes), ended
        return gin_file, losses(folder / "run")

    return run


def losses(run_folder) -> list[float]:
    records = map(json.loads, (run_folder / "metrics.jsonl").read_text().splitlines())
    return [record["loss"] for record in records if record["kind"] == "train"]


def complete_checkpoints(run_folder) -> list[int]:
    folder = run_folder / "checkpoints"
    return [int(path.name) for path in folder.glob("*") if path.name.isdecimal()]


def hit_one_of_several(processes, victim, number) -> list[str]:
    """Sends a signal to one process; makes sure that all end well, or with its name, in time."""
    processes[victim].send_signal(number)
    begin = time.monotonic()
    ended = [process.communicate(timeout=300) for process in processes]
    seconds = time.monotonic() - begin
    print(f"{number.name} to process {victim}: all have ended after {seconds:.1f} s")
    assert seconds < 60
    for process, (_, errors) in zip(processes, ended, strict=True):
        if number == signal.SIGTERM:
            assert process.returncode == 0, errors
        elif process is not processes[victim]:
            assert process.returncode == 1, errors
            assert f"process {victim} on" in errors and "is lost" in errors, errors
    return [output for output, _ in ended]


def hit_and_go_on(undisturbed, start_processes, run_folder, hits, count, seed) -> None:
    """Hits a run of `count` processes again and again, lets it end, and compares its losses."""
    gin_file, expected = undisturbed
    steps = len(expected)
    together = [*command(gin_file, run_folder, steps), *CALM]
    numbers = random.Random(seed)
    for done, kind in enumerate(hits):
        processes = start_processes(together, count)
        before = complete_checkpoints(run_folder)
        begun = max(train_steps(run_folder), default=0)
        # Half of the steps for the hits: the run goes on while it is looked at.
        ahead = numbers.randint(1, steps // len(hits) // 2)
        wait_for_step(processes[0], run_folder, begun + ahead)
        time.sleep(numbers.uniform(0, 0.3))
        if processes[0].poll() is not None:
            pytest.fail(f"the run ended before hit {done}: {processes[0].communicate()[1]}")
        there = complete_checkpoints(run_folder)
        victim = numbers.randrange(count)
        output = hit_one_of_several(processes, victim, kind)[0]
        if before and not (victim == 0 and kind == signal.SIGKILL):
            assert f"resuming from step {max(before)}" in output
        assert max(complete_checkpoints(run_folder), default=0) >= max(there, default=0)
    processes = start_processes(together, count)
    newest = max(complete_checkpoints(run_folder), default=0)
    ended = [process.communicate(timeout=900) for process in processes]
    for process, (_, errors) in zip(processes, ended, strict=True):
        assert process.returncode == 0, errors
    assert (f"resuming from step {newest}" if newest else "from the start") in ended[0][0]
    assert train_steps(run_folder) == list(range(1, steps + 1))
    np.testing.assert_allclose(losses(run_folder), expected, rtol=RELATIVE)
    assert_two_checkpoints(run_folder, steps)


@pytest.mark.slow
def test_a_run_of_two_processes_survives_the_loss_and_the_stop_of_one(
    undisturbed, start_processes, tmp_path
):
    hits = [signal.SIGKILL, signal.SIGTERM]
    one = undisturbed(STEPS, count=1)
    hit_and_go_on(one, start_processes, tmp_path / "run", hits, count=2, seed=3)


@pytest.mark.slow
def test_a_run_of_four_processes_survives_twenty_hits(undisturbed, start_processes, tmp_path):
    kinds = [signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGKILL]
    hits = [kinds[number % len(kinds)] for number in range(20)]
    # Over so many steps, sums in the order of one process would end up elsewhere.
    four = undisturbed(4 * STEPS, count=4)
    hit_and_go_on(four, start_processes, tmp_path / "run", hits, count=4, seed=4)
