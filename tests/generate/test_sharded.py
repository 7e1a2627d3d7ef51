"""A network spread over devices fills and scores as on one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def test_a_network_over_eight_devices_gives_the_tokens_and_scores_of_one():
    environment = os.environ | {
        "XLA_FLAGS": "--xla_force_host_platform_device_count=8 "
        "--xla_cpu_collective_call_terminate_timeout_seconds=240",
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": str(ROOT),
    }
    run = subprocess.run(
        [sys.executable, Path(__file__).with_name("sharded_fill.py")],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout)
    alone, spread = found["alone"], found["spread"]
    assert spread["greedy"] == alone["greedy"] and spread["beams"] == alone["beams"]
    assert spread["scores"] == pytest.approx(alone["scores"], rel=1e-5)
    assert alone["cache_part"] == [16, 8, 4, 64, 8]
    assert spread["cache_part"] == [16, 2, 2, 64, 8]  # rows over four, heads over two
