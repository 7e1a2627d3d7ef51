"""The variant with relative positions has the loss and gradients of one device on any mesh."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("sharded_relative.py")
REPOSITORY = Path(__file__).parents[2]
# fsdp, fsdp_minor, tensor; data takes the rest of eight devices.
MESHES = {"fsdp x tensor": (4, 1, 2), "two fsdp axes x tensor": (2, 2, 2), "tensor": (1, 1, 4)}
RELATIVE = 1e-5  # float32 sums in another order


@pytest.fixture(scope="module")
def results() -> dict[str, dict]:
    environment = os.environ | {
        "XLA_FLAGS": "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0",
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")]),
    }
    command = [sys.executable, str(PROGRAM), json.dumps(list(MESHES.values()))]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return dict(zip(MESHES, json.loads(done.stdout), strict=True))


@pytest.mark.parametrize("mesh", MESHES)
def test_a_mesh_gives_the_loss_of_one_device(results, mesh):
    assert results[mesh]["loss"] == pytest.approx(results[mesh]["expected_loss"], rel=RELATIVE)


@pytest.mark.parametrize("mesh", MESHES)
def test_a_mesh_gives_the_gradients_of_one_device(results, mesh):
    gradients = results[mesh]["gradients"]
    assert "inverse_frequency" in gradients
    assert {name: d for name, d in gradients.items() if d > RELATIVE} == {}


def test_every_device_stores_its_shard(results):
    assert results["fsdp x tensor"]["kernel_shard"] == [2, 8, 16]
