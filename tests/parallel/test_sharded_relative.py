"""The variant with relative positions has the loss and gradients of one device on any mesh."""

from __future__ import annotations

import functools
import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("sharded_relative.py")
# fsdp, fsdp_minor, tensor; data takes the rest of eight devices.
MESHES = {"fsdp x tensor": (4, 1, 2), "two fsdp axes x tensor": (2, 2, 2), "tensor": (1, 1, 4)}
CASES = [pytest.param(mesh, marks=() if "two" in mesh else pytest.mark.slow) for mesh in MESHES]
RELATIVE = 1e-5  # float32 sums in another order


@pytest.fixture(scope="module")
def result_of(run_program) -> Callable[[str], dict]:
    """What the program gives for a mesh, each in a process of its own."""

    @functools.cache
    def run(mesh: str) -> dict | Exception:
        try:
            return json.loads(run_program(PROGRAM, json.dumps([MESHES[mesh]])))[0]
        except (AssertionError, subprocess.TimeoutExpired) as error:
            return error  # it is not run again for every test of the mesh

    def result(mesh: str) -> dict:
        found = run(mesh)
        if isinstance(found, Exception):
            raise found
        return found

    return result


@pytest.mark.parametrize("mesh", CASES)
def test_a_mesh_gives_the_loss_of_one_device(result_of, mesh):
    found = result_of(mesh)
    assert found["loss"] == pytest.approx(found["expected_loss"], rel=RELATIVE)


@pytest.mark.parametrize("mesh", CASES)
def test_a_mesh_gives_the_gradients_of_one_device(result_of, mesh):
    gradients = result_of(mesh)["gradients"]
    assert "inverse_frequency" in gradients
    assert {name: d for name, d in gradients.items() if not d <= RELATIVE} == {}


@pytest.mark.parametrize("mesh", [case for case in CASES if "fsdp" in str(case.values)])
def test_every_device_stores_its_shard(result_of, mesh):
    assert result_of(mesh)["kernel_shard"] == [2, 8, 16]
