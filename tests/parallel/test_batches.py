"""Each process makes the rows of its own devices, wherever the mesh puts them."""

from __future__ import annotations

import json
import socket
import subprocess
import sys

import pytest

from tests.conftest import HANG_SECONDS

# Two of four devices stand for another process: what they hold is not asked for.
PROGRAM = """
import json, sys
import jax, numpy as np
from jax.sharding import AxisType, Mesh
from glm_jax.parallel.batches import process_rows, to_devices
from glm_jax.parallel.mesh import MESH_AXES

results = []
for order in json.loads(sys.argv[1]):
    devices = np.array([jax.devices()[i] for i in order]).reshape(1, 4, 1, 1, 1)
    mesh = Mesh(devices, MESH_AXES, axis_types=(AxisType.Auto,) * 5)
    rows = process_rows(mesh, 8)
    whole = np.arange(24).reshape(8, 3)
    (batch,) = to_devices([{"tokens": whole[rows]}], mesh, 8)
    shards = {s.device.id: s.data.tolist() for s in batch["tokens"].addressable_shards}
    results.append({"rows": rows, "shards": shards})
print(json.dumps(results))
"""
ORDERS = [[0, 1, 2, 3], [0, 2, 1, 3]]


@pytest.fixture(scope="module")
def results_of_processes(process_environment) -> list[list[dict]]:
    """For each of two processes, and for each order of their devices: what it has made."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    processes = []
    for number in range(2):
        join = f"import jax; jax.distributed.initialize({address!r}, 2, {number})\n"
        processes.append(
            subprocess.Popen(
                [sys.executable, "-c", join + PROGRAM, json.dumps(ORDERS)],
                env=process_environment(2),
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    ended = [process.communicate(timeout=HANG_SECONDS) for process in processes]
    results = []
    for process, (output, errors) in zip(processes, ended, strict=True):
        assert process.returncode == 0, errors
        results.append(json.loads(output.strip().splitlines()[-1]))
    return results


@pytest.mark.parametrize("number", range(len(ORDERS)), ids=lambda number: str(ORDERS[number]))
def test_two_processes_make_the_rows_of_their_devices(results_of_processes, number):
    order, results = ORDERS[number], [made[number] for made in results_of_processes]
    assert sorted(results[0]["rows"] + results[1]["rows"]) == list(range(8))
    held = [rows for result in results for rows in result["shards"].values()]
    expected = [[[3 * r, 3 * r + 1, 3 * r + 2] for r in (2 * i, 2 * i + 1)] for i in range(4)]
    assert sorted(held) == expected
    apart = order != sorted(order)
    assert (results[0]["rows"] == [0, 1, 4, 5]) == apart
