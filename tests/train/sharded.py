"""Starts `sharded_optimizers.py` in a process of its own, which has eight virtual devices."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.conftest import HANG_SECONDS

PROGRAM = Path(__file__).with_name("sharded_optimizers.py")
REPOSITORY = Path(__file__).parents[2]


def sharded_optimizers(kinds: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Its result for each kind of optimizer, given by its fields in the configuration."""
    environment = os.environ | {
        "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8",
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")]),
    }
    done = subprocess.run(
        [sys.executable, str(PROGRAM), json.dumps(kinds)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=HANG_SECONDS,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
