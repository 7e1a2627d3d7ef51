"""The real TPU compiler takes the step of GLM-10B, and it has not become dearer.

What grew on purpose is recorded anew with `python -m tests.tpu.record`.
"""

from __future__ import annotations

import functools

import pytest

pytest.importorskip("libtpu")

from tests.tpu.steps import SLICES, Figures, compile_slice, figures, read_recorded

ALLOWED_GROWTH = 1.05


@functools.cache
def compiled(topology: str) -> Figures:
    """Figures of one slice, compiled once."""
    report = compile_slice(topology)
    assert report.fits
    assert not report.unknown_loops
    return figures(report)


# Each takes more than a minute to compile; tests/compile/test_command.py has a small step.
pytestmark = pytest.mark.slow


@pytest.mark.parametrize("name", ["temporaries", "wire_bytes", "cycles"])
@pytest.mark.parametrize("topology", SLICES)
def test_the_step_has_not_become_dearer(topology, name):
    recorded = getattr(read_recorded()[topology], name)
    now = getattr(compiled(topology), name)
    assert now <= ALLOWED_GROWTH * recorded, f"{name} on {topology}: {now:g}, before {recorded:g}"


@pytest.mark.parametrize("topology", SLICES)
def test_gradients_are_reduced_and_scattered_in_one(topology):
    assert compiled(topology).reduce_scatters > 0
