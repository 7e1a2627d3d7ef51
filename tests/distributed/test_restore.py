"""A checkpoint goes on over another mesh and another number of processes, at the same example."""

import shutil

import numpy as np
import pytest

from glm_jax.train.metrics import read_metrics

SAVED, STEPS = 3, 6  # all that `finished_tiny_run` has
RELATIVE = 1e-5  # float32 sums in another order

# Processes, devices of each, and the mesh over them all.
ELSEWHERE = {
    "tensor=2, data=4": (1, 8, ["mesh.data=4", "mesh.tensor=2"]),
    "two processes": (2, 4, ["mesh.data=2", "mesh.fsdp=4"]),
    "one device": (1, 1, []),
}


def arguments(gin_file, run_folder, num_steps, bindings) -> list[str]:
    all_bindings = [f"train.num_steps={num_steps}", f"train.run_folder={run_folder}", *bindings]
    return ["pretrain", f"--gin_file={gin_file}", *(f"--gin.{b}" for b in all_bindings)]


def steps(run_folder) -> list[dict]:
    return [r for r in read_metrics(run_folder / "metrics.jsonl") if r["kind"] == "train"]


@pytest.fixture(scope="module")
def begun(run_command, write_tiny_run, finished_tiny_run, tmp_path_factory):
    """The gin file, a run of one device to its end, and one on fsdp=8 that ended half-way."""
    folder = tmp_path_factory.mktemp("restore")
    gin_file = write_tiny_run(folder)
    half = run_command(
        arguments(gin_file, folder / "half", SAVED, ["mesh.data=1", "mesh.fsdp=8"]), devices=8
    )
    assert half.returncode == 0, half.stderr
    return gin_file, finished_tiny_run, folder / "half"


@pytest.mark.parametrize(
    "where",
    # Killed runs of several processes resume in test_kills.py.
    [
        *(pytest.param(w, marks=pytest.mark.slow) for w in ("tensor=2, data=4", "two processes")),
        "one device",
    ],
)
def test_a_run_goes_on_elsewhere(where, begun, start_processes, run_command, run_here, tmp_path):
    gin_file, whole, half = begun
    count, devices, bindings = ELSEWHERE[where]
    shutil.copytree(half, tmp_path / "run")
    command = arguments(gin_file, tmp_path / "run", STEPS, bindings)
    if count > 1:
        processes = start_processes(command, count, devices)
        ended = [(process, process.communicate(timeout=900)) for process in processes]
        for process, (_, errors) in ended:
            assert process.returncode == 0, errors
        output = ended[0][1][0]
    else:
        finished = run_here(command) if devices == 1 else run_command(command, devices)
        assert finished.returncode == 0, finished.stderr
        output = finished.stdout
    assert f"resuming from step {SAVED}" in output
    expected, found = steps(whole), steps(tmp_path / "run")
    assert [r["step"] for r in found] == list(range(1, STEPS + 1))
    # The same examples have the same number of targets at every step.
    assert [r["target_tokens"] for r in found] == [r["target_tokens"] for r in expected]
    np.testing.assert_allclose(
        [r["loss"] for r in found], [r["loss"] for r in expected], rtol=RELATIVE
    )
