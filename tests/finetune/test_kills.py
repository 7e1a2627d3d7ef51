"""Finetuning runs that are killed, stopped or damaged go on exactly where they were."""

from __future__ import annotations

import json
import random
import signal
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from rich.console import Console

import glm_jax
from glm_jax.cluster.preemption import StopRequest
from glm_jax.configure import read_configuration
from glm_jax.finetune import run as run_module
from glm_jax.finetune.config import FinetuneRunConfig
from glm_jax.finetune.history import best_step_of
from glm_jax.finetune.run import finetune
from glm_jax.train.metrics import read_metrics

EPOCHS, STEPS_PER_EPOCH = 5, 6
STEPS = EPOCHS * STEPS_PER_EPOCH
# Slow enough for the best evaluation not to be the first or always the last.
SETTINGS = [f"finetune.epochs={EPOCHS}", "finetune.log_every=1", "optimizer.learning_rate=6e-4"]


def run(task: Path, folder: Path, *more: str):
    bindings = [f"finetune.run_folder={folder}", *SETTINGS, *more]
    config = read_configuration([task / "run.gin"], bindings, FinetuneRunConfig)
    return finetune(config, Console(quiet=True))


def command(task: Path, folder: Path) -> list[str]:
    settings = [f"--gin.{setting}" for setting in SETTINGS]
    gin_file = f"--gin_file={task / 'run.gin'}"
    return ["finetune", gin_file, f"--gin.finetune.run_folder={folder}", *settings]


def train_steps(folder: Path) -> list[int]:
    """Steps logged so far; the last line may be half written."""
    return [r["step"] for r in read_metrics(folder / "metrics.jsonl") if r["kind"] == "train"]


def records(folder: Path) -> list[dict]:
    """Training and evaluations, without how long they took."""
    timings = ("seconds", "step_seconds", "tokens_per_second", "data_wait")
    return [
        {name: value for name, value in record.items() if name not in timings}
        for record in read_metrics(folder / "metrics.jsonl")
        if record["kind"] != "save"
    ]


def checkpoints_of(folder: Path) -> list[int]:
    names = [path.name for path in (folder / "checkpoints").iterdir()]
    return sorted(int(name) for name in names if name.isdecimal())


def pointers(folder: Path) -> list[dict]:
    return [json.loads((folder / "checkpoints" / name).read_text()) for name in ("best", "last")]


def params_of(path: Path):
    return jax.tree.map(np.asarray, glm_jax.load(path)[1])


def assert_same(expected: Path, found: Path) -> None:
    """All that a run leaves is equal, bit for bit."""
    assert records(found) == records(expected)
    assert checkpoints_of(found) == checkpoints_of(expected)
    assert pointers(found) == pointers(expected)
    for name in ("results.json", "predictions.jsonl"):
        assert (found / name).read_text() == (expected / name).read_text()
    for step in checkpoints_of(expected):
        jax.tree.map(
            np.testing.assert_array_equal,
            params_of(found / f"checkpoints/{step}"),
            params_of(expected / f"checkpoints/{step}"),
        )


@pytest.fixture(scope="module")
def uninterrupted(tiny_task, tmp_path_factory):
    folder = tmp_path_factory.mktemp("uninterrupted") / "run"
    assert run(tiny_task, folder).results is not None
    assert train_steps(folder) == list(range(1, STEPS + 1))
    best = best_step_of(folder)
    assert best is not None
    # The last checkpoint and, where it is another one, the best: `checkpoint.keep` is 1.
    assert checkpoints_of(folder) == sorted({best, STEPS})
    return folder


@pytest.mark.slow
def test_a_run_killed_five_times_resumes_exactly(
    uninterrupted, tiny_task, start_command, run_here, tmp_path
):
    folder, moments = tmp_path / "run", random.Random(5)
    for _ in range(5):
        process = start_command(command(tiny_task, folder))
        last = max(train_steps(folder), default=0) + moments.randint(1, STEPS // 5)
        while process.poll() is None and max(train_steps(folder), default=0) < last:
            time.sleep(0.01)
        time.sleep(moments.uniform(0, 0.3))  # anywhere inside a step, a save or an evaluation
        process.kill()
        process.communicate()
    finished = run_here(command(tiny_task, folder))
    assert finished.returncode == 0, finished.stderr
    assert_same(uninterrupted, folder)


@pytest.mark.slow
def test_sigterm_saves_and_exits_with_0(
    uninterrupted, tiny_task, start_command, run_here, tmp_path
):
    folder = tmp_path / "run"
    process = start_command(command(tiny_task, folder))
    while process.poll() is None and max(train_steps(folder), default=0) < STEPS_PER_EPOCH + 2:
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    output, errors = process.communicate(timeout=900)
    assert process.returncode == 0, errors
    stopped = int(output.split("stopped after step ")[1].split()[0])
    assert stopped in checkpoints_of(folder) and not (folder / "results.json").exists()
    finished = run_here(command(tiny_task, folder))
    assert f"resuming from step {stopped}" in finished.stdout
    assert_same(uninterrupted, folder)


class Killed(BaseException):
    """Ends a run at a moment as a kill would."""


def kill_at_call(patch: pytest.MonkeyPatch, name: str, number: int) -> None:
    """Ends the run before what is called there is done, the n-th time that it is."""
    calls = iter(range(1, 1000))
    original = getattr(run_module, name)

    def killed(*arguments):
        if next(calls) == number:
            raise Killed
        return original(*arguments)

    patch.setattr(run_module, name, killed)


@pytest.mark.parametrize(
    ("name", "number"),
    [
        # A checkpoint is saved, and not evaluated.
        pytest.param("predictions_of", 2, marks=pytest.mark.slow),
        # It is evaluated, and the pointers do not know it.
        pytest.param("write_pointers", 2, marks=pytest.mark.slow),
        # The same after the last step.
        pytest.param("write_pointers", EPOCHS, marks=pytest.mark.slow),
        pytest.param("write_results", 1, marks=pytest.mark.slow),
    ],
)
def test_a_kill_between_two_steps_of_an_evaluation_loses_nothing(
    uninterrupted, tiny_task, tmp_path, monkeypatch, name, number
):
    folder = tmp_path / "run"
    with monkeypatch.context() as patch:
        kill_at_call(patch, name, number)
        with pytest.raises(Killed):
            run(tiny_task, folder)
    assert run(tiny_task, folder).results is not None
    assert_same(uninterrupted, folder)


def test_a_stop_at_the_last_step_does_not_lose_its_evaluation(
    uninterrupted, tiny_task, tmp_path, monkeypatch
):
    folder = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(StopRequest, "asked", lambda self, step: step == STEPS)
        stopped = run(tiny_task, folder)
    assert (stopped.results, stopped.steps) == (None, STEPS)
    assert run(tiny_task, folder).results is not None
    assert_same(uninterrupted, folder)


def damage(checkpoint: Path) -> None:
    file = max(checkpoint.rglob("*"), key=lambda path: path.is_file() and path.stat().st_size)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0xFF
    file.write_bytes(content)


def test_a_damaged_last_checkpoint_falls_back_with_the_pointers(
    uninterrupted, tiny_task, tmp_path, monkeypatch, capsys
):
    folder = tmp_path / "run"
    with monkeypatch.context() as patch:
        kill_at_call(patch, "predictions_of", 4)
        with pytest.raises(Killed):
            run(tiny_task, folder, "checkpoint.keep=3")
    last = 4 * STEPS_PER_EPOCH
    damage(folder / f"checkpoints/{last}")
    found = []
    evaluate = run_module.evaluate_dev

    def look(*arguments):
        found.append(pointers(folder))
        return evaluate(*arguments)

    monkeypatch.setattr(run_module, "evaluate_dev", look)
    assert run(tiny_task, folder).results is not None
    # Before the next evaluation: the pointers name checkpoints that are there.
    best, pointed = found[0]
    assert pointed == {"step": last - STEPS_PER_EPOCH}
    assert best["step"] <= last - STEPS_PER_EPOCH
    aside = [path for path in (folder / "checkpoints").iterdir() if "damaged" in path.name]
    assert [path.name.partition(".")[0] for path in aside] == [str(last)]
    assert records(folder) == records(uninterrupted)
    assert pointers(folder) == pointers(uninterrupted)
    assert (folder / "results.json").read_text() == (uninterrupted / "results.json").read_text()


@pytest.mark.slow
def test_the_best_checkpoint_outlives_later_ones(tiny_task, tmp_path):
    # So high a rate that what was learnt is lost again.
    settings = ("optimizer.learning_rate=1.0", "optimizer.warmup_fraction=0.9")
    outcome = run(tiny_task, tmp_path / "run", *settings)
    best = best_step_of(tmp_path / "run")
    assert outcome.results is not None and outcome.results["step"] == best
    assert best is not None and best < STEPS - STEPS_PER_EPOCH
    assert checkpoints_of(tmp_path / "run") == [best, STEPS]


def test_a_run_whose_patience_is_over_does_not_train_on(tiny_task, tmp_path, monkeypatch):
    settings = ("optimizer.learning_rate=1e-12", "finetune.patience=1")
    folder = tmp_path / "run"
    with monkeypatch.context() as patch:
        kill_at_call(patch, "write_results", 1)
        with pytest.raises(Killed):
            run(tiny_task, folder, *settings)
    outcome = run(tiny_task, folder, *settings)
    assert outcome.steps == 2 * STEPS_PER_EPOCH and outcome.results is not None
    assert train_steps(folder) == list(range(1, 2 * STEPS_PER_EPOCH + 1))
