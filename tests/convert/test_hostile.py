"""Damaged and hostile checkpoints: one sentence each, nothing run, nothing taken without end."""

from __future__ import annotations

import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from glm_jax.convert.layouts.huggingface import HuggingFaceSource
from glm_jax.convert.layouts.original import OriginalSource
from glm_jax.errors import RunError, UsageError
from tests.convert.hostile_inputs import HostileInput, expected_tensors, hostile_inputs

INPUTS = hostile_inputs()
# The largest file is a pickle of 64 MiB; nothing that is refused is read as a whole.
MAX_MEMORY_BYTES = 40 << 20
MAX_SECONDS = 5.0  # of the processor: the machine may be busy


def read_all(kind: str, path: Path) -> dict[str, np.ndarray]:
    source = HuggingFaceSource(path) if kind == "huggingface" else OriginalSource(path)
    with source:
        return {name: source.read(name) for name in source.tensors}


def test_there_are_enough():
    assert len(INPUTS) >= 400


# Of the random damage of each kind, the first quarter in `make test`.
@pytest.mark.parametrize(
    "hostile",
    [
        pytest.param(one, id=one.name, marks=pytest.mark.slow if one.number >= 10 else ())
        for one in INPUTS
    ],
)
def test_hostile_input(hostile: HostileInput, tmp_path):
    folder, marker = tmp_path / "checkpoint", tmp_path / "marker"
    folder.mkdir()
    path = hostile.make(folder, marker)
    tensors = None
    tracemalloc.start()
    started = time.process_time()
    try:
        tensors = read_all(hostile.kind, path)
    except (UsageError, RunError) as error:
        message = str(error)
        assert "\n" not in message and "\x1b" not in message
        assert str(folder) in message
        assert len(message) < 600 + 3 * len(str(folder))
        message.encode()
    finally:
        seconds = time.process_time() - started
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert not marker.exists()
    assert peak < MAX_MEMORY_BYTES
    assert seconds < MAX_SECONDS
    if tensors is not None:
        assert hostile.may_read, "was read as if it were good"
        expected = expected_tensors()
        assert tensors.keys() == expected.keys()
        for name, tensor in expected.items():
            np.testing.assert_array_equal(
                tensors[name].view(np.uint16), tensor.view(np.uint16), err_msg=name
            )
