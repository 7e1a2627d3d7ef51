"""The same run on one device, on many in every layout, and on several processes."""

import json

import numpy as np
import pytest

from glm_jax.cli.main import main

STEPS = 10
RELATIVE = 1e-5  # float32 sums in another order

LAYOUTS = {
    "data=8": (8, ["mesh.data=8"]),
    "fsdp=8": (8, ["mesh.data=1", "mesh.fsdp=8"]),
    "fsdp=2 x 4": (8, ["mesh.data=1", "mesh.fsdp=2", "mesh.fsdp_minor=4"]),
    "context=2, tensor=2, fsdp=2": (
        8,
        ["mesh.data=1", "mesh.fsdp=2", "mesh.context=2", "mesh.tensor=2"],
    ),
    "data=2, accumulated over 4": (2, ["mesh.data=2", "train.accumulation_steps=4"]),
    "one device, accumulated over 4": (1, ["train.accumulation_steps=4"]),
}
# `make test` has the steps of these layouts in tests/parallel/test_sharded_step.py, and a run on
# eight devices and on two processes in test_restore.py.
pytestmark = pytest.mark.slow


def arguments(gin_file, run_folder, bindings) -> list[str]:
    common = [f"train.num_steps={STEPS}", f"train.run_folder={run_folder}"]
    return [
        "pretrain",
        f"--gin_file={gin_file}",
        *(f"--gin.{binding}" for binding in (*common, *bindings)),
    ]


def losses(run_folder) -> list[float]:
    records = map(json.loads, (run_folder / "metrics.jsonl").read_text().splitlines())
    return [record["loss"] for record in records if record["kind"] == "train"]


@pytest.fixture(scope="module")
def reference(write_tiny_run, tmp_path_factory):
    """The gin file of a run, and its losses in one process on one device."""
    folder = tmp_path_factory.mktemp("layouts")
    gin_file = write_tiny_run(folder)
    assert main(arguments(gin_file, folder / "one", [])) == 0
    values = losses(folder / "one")
    assert len(values) == STEPS and values[-1] < values[0]
    return gin_file, values


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_layout_gives_the_losses_of_one_device(layout, reference, run_command, tmp_path):
    gin_file, expected = reference
    devices, bindings = LAYOUTS[layout]
    finished = run_command(arguments(gin_file, tmp_path / "run", bindings), devices)
    assert finished.returncode == 0, finished.stderr
    np.testing.assert_allclose(losses(tmp_path / "run"), expected, rtol=RELATIVE)


@pytest.mark.parametrize(
    ("count", "bindings"),
    [
        (2, ["mesh.fsdp=8"]),
        (2, ["mesh.data=2", "mesh.fsdp=4"]),
        (4, ["mesh.data=2", "mesh.fsdp=2", "mesh.fsdp_minor=2"]),
    ],
    ids=str,
)
def test_processes_give_the_losses_of_one(count, bindings, reference, start_processes, tmp_path):
    gin_file, expected = reference
    command = arguments(gin_file, tmp_path / "run", bindings)
    processes = start_processes(command, count=count, devices=8 // count)
    ended = [process.communicate(timeout=900) for process in processes]
    for process, (_, errors) in zip(processes, ended, strict=True):
        assert process.returncode == 0, errors
    np.testing.assert_allclose(losses(tmp_path / "run"), expected, rtol=RELATIVE)
