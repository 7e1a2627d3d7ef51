"""Fixtures that several files of parity tests use."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from glm_jax.convert.load import load as load_checkpoint


@pytest.fixture(scope="session")
def load_recorded(shared: Path) -> Callable[[str], tuple[Any, Any]]:
    """Loads the model of a folder of recorded numbers: (model, parameters)."""

    def load(name: str) -> tuple[Any, Any]:
        folder = shared / "goldens" / name
        config = json.loads((folder / "config.json").read_text())
        return load_checkpoint(folder / "ckpt", num_attention_heads=config["num_attention_heads"])

    return load
