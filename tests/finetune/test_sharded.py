"""Losses, gradients, dropout and scores of finetuning do not depend on the mesh."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("sharded.py")
RELATIVE = 1e-5  # float32 sums in another order


@pytest.mark.parametrize(
    "way",
    [
        "adapters",
        *(
            pytest.param(way, marks=pytest.mark.slow)
            for way in ("head", "layers", "generative", "prompts", "answers")
        ),
    ],
)
def test_eight_devices_are_as_one(run_program, way):
    one, eight = json.loads(run_program(PROGRAM, way).splitlines()[-1])
    for found, expected in zip(eight["steps"], one["steps"], strict=True):
        assert found == pytest.approx(expected, rel=RELATIVE)
    for found, expected in zip(eight["scores"], one["scores"], strict=True):
        assert found == pytest.approx(expected, abs=1e-4)
