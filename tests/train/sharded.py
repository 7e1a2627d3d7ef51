"""Starts `sharded_optimizers.py` in a process of its own, which has eight virtual devices."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

PROGRAM = Path(__file__).with_name("sharded_optimizers.py")


def sharded_optimizers(
    run_program: Callable[..., str], kinds: dict[str, dict[str, Any]]
) -> dict[str, dict[str, Any]]:
    """Its result for each kind of optimizer, given by its fields in the configuration."""
    return json.loads(run_program(PROGRAM, json.dumps(kinds)))
