"""Runs of several processes and devices: the results of one device, written once."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from glm_jax.cli.main import main
from glm_jax.train.metrics import read_metrics
from tests.distributed.conftest import start_processes

__all__ = ["start_processes"]  # a fixture

RELATIVE = 1e-5  # float32 sums in another order
HANG_SECONDS = 900
# A low rate, under which rounding does not grow from step to step.
RATE = "optimizer.learning_rate=1e-3"
# 44 training examples in batches of 8 and 20 of dev in batches of 16: the last ones are partial.
EPOCHS = ["finetune.epochs=2", "finetune.log_every=1", "finetune.evaluation_batch_size=16"]
SETTINGS = [*EPOCHS, RATE]


def command(task: Path, folder: Path, *more: str) -> list[str]:
    flags = [f"--gin.{setting}" for setting in (*SETTINGS, *more)]
    return [
        "finetune",
        f"--gin_file={task / 'run.gin'}",
        f"--gin.finetune.run_folder={folder}",
        *flags,
    ]


@pytest.fixture(scope="module")
def one_device(tiny_task, tmp_path_factory):
    """The run on one device, of a task with a test split too."""
    folder = tmp_path_factory.mktemp("one") / "run"
    assert main(command(tiny_task, folder)) == 0
    return folder


def of_kind(folder: Path, kind: str) -> list[dict]:
    return [record for record in read_metrics(folder / "metrics.jsonl") if record["kind"] == kind]


def assert_same_run(found: Path, expected: Path) -> None:
    """Losses within rounding; metrics, predictions and pointers equal, and nothing twice."""
    losses = [[r["loss"] for r in of_kind(folder, "train")] for folder in (found, expected)]
    np.testing.assert_allclose(losses[0], losses[1], rtol=RELATIVE)
    evaluations = [
        [(r["step"], r["accuracy"]) for r in of_kind(folder, "validation")]
        for folder in (found, expected)
    ]
    assert evaluations[0] == evaluations[1]
    for name in ("results.json", "predictions.jsonl", "checkpoints/best", "checkpoints/last"):
        assert (found / name).read_text() == (expected / name).read_text(), name


def end(processes) -> list[tuple[int, str, str]]:
    """Exit code, output and errors of each; without what the connections' library prints."""
    ended = []
    for process in processes:
        texts = process.communicate(timeout=HANG_SECONDS)
        output, errors = (
            "".join(line for line in text.splitlines(keepends=True) if "[Gloo]" not in line)
            for text in texts
        )
        ended.append((process.returncode, output, errors))
    return ended


@pytest.mark.slow
def test_two_processes_have_the_results_of_one_device(
    one_device, tiny_task, start_processes, tmp_path
):
    folder = tmp_path / "run"
    (code, output, errors), (other_code, other_output, other_errors) = end(
        start_processes(command(tiny_task, folder), 2)
    )
    assert (code, other_code) == (0, 0), errors + other_errors
    assert_same_run(folder, one_device)
    # Only the first process reports.
    accuracy = json.loads((folder / "results.json").read_text())["accuracy"]
    assert f"dev         accuracy {accuracy:.4g}\n" in output and other_output == ""


@pytest.mark.slow
@pytest.mark.parametrize("mesh", [(8, 1, 1), (2, 2, 2)], ids=["data", "all-axes"])
def test_eight_devices_have_the_results_of_one(one_device, tiny_task, run_command, tmp_path, mesh):
    axes = dict(zip(("data", "fsdp", "tensor"), mesh, strict=True))
    shape = [f"mesh.{axis}={size}" for axis, size in axes.items()]
    done = run_command(command(tiny_task, tmp_path / "run", *shape), devices=8)
    assert done.returncode == 0, done.stderr
    assert_same_run(tmp_path / "run", one_device)


@pytest.mark.slow
def test_two_processes_of_four_devices_train_several_seeds_and_resume(
    tiny_task, start_processes, run_here, tmp_path
):
    several = ["finetune.seeds=(1, 2)", "mesh.data=2", "mesh.fsdp=2", "mesh.tensor=2"]
    together = end(start_processes(command(tiny_task, tmp_path / "run", *several), 2, devices=4))
    assert [code for code, _, _ in together] == [0, 0], together
    alone = run_here(command(tiny_task, tmp_path / "alone", several[0]))
    assert alone.returncode == 0, alone.stderr
    for seed in (1, 2):
        assert_same_run(tmp_path / f"run/seed_{seed}", tmp_path / f"alone/seed_{seed}")
    found = [(tmp_path / name / "results.json").read_text() for name in ("run", "alone")]
    assert found[0] == found[1]


@pytest.mark.slow
@pytest.mark.parametrize("missing", [0, 1])
def test_a_file_that_one_process_misses_ends_all_with_one_sentence(
    tiny_task, start_command, tmp_path, missing, unused_address
):
    folder = tmp_path / "run"
    processes = []
    for number in (0, 1):
        more = ["task.data=nowhere"] if number == missing else []
        join = [f"--coordinator={unused_address}", "--num_processes=2", f"--process_id={number}"]
        processes.append(start_command([*command(tiny_task, folder, *more), *join]))
    for number, (code, output, errors) in enumerate(end(processes)):
        assert errors.count("\n") == 1 and "step" not in output, errors
        assert errors.startswith("glm-jax: ") and "train.jsonl is missing" in errors
        if number == missing:
            assert code == 2
        else:
            assert code == 1 and f"process {missing} on" in errors
    assert not (folder / "results.json").exists() and not (folder / "checkpoints").exists()


@pytest.fixture
def unused_address() -> str:
    import socket

    with socket.socket() as free:
        free.bind(("localhost", 0))
        return f"localhost:{free.getsockname()[1]}"
