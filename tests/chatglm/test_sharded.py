"""ChatGLM's losses, gradients and dropout do not depend on the mesh or on remat."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("sharded.py")
RELATIVE = 1e-5  # float32 sums in another order


@pytest.mark.parametrize(
    "way",
    ["projection", *(pytest.param(w, marks=pytest.mark.slow) for w in ("full", "prefix", "int8"))],
)
def test_eight_devices_are_as_one(run_program, way):
    printed = json.loads(run_program(PROGRAM, way).splitlines()[-1])
    assert printed["one"][0][1] > 1e-6  # there is a gradient, small as random prefixes are
    for name, found in printed["found"].items():
        for step, expected in zip(found, printed["one"], strict=True):
            assert step == pytest.approx(expected, rel=RELATIVE), name
