"""Safetensors files: our reader and writer against each other and against the library."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from glm_jax.convert.formats.safetensors import SafetensorsFile, SafetensorsWriter
from tests.convert.tiny import BFLOAT16, bytes_of, infos_of

DTYPES = [np.dtype(np.float16), BFLOAT16, np.dtype(np.float32), np.dtype(np.int64)]


@st.composite
def states(draw) -> dict[str, np.ndarray]:
    """Named arrays of random bits."""
    names = draw(st.lists(st.text(min_size=1, max_size=9), min_size=1, max_size=5, unique=True))
    state = {}
    for name in names:
        dtype = draw(st.sampled_from(DTYPES))
        shape = tuple(draw(st.lists(st.integers(0, 4), max_size=3)))
        size = int(np.prod(shape)) * dtype.itemsize
        data = draw(st.binary(min_size=size, max_size=size))
        state[name] = np.frombuffer(data, dtype).reshape(shape)
    state.pop("__metadata__", None)
    return state


def write(path: Path, state: dict[str, np.ndarray]) -> None:
    path.unlink(missing_ok=True)
    writer = SafetensorsWriter(path, infos_of(state))
    for name in sorted(state):
        writer.write(name, state[name])
    writer.finish()


def assert_reads(path: Path, state: dict[str, np.ndarray]) -> None:
    file = SafetensorsFile(path)
    assert file.tensors == infos_of(state)
    for name, tensor in state.items():
        found = file.read(name)
        assert bytes_of(found) == bytes_of(tensor)
        assert found.flags.writeable
    file.close()


@given(state=states())
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_state_reads_back(state, tmp_path):
    write(tmp_path / "a.safetensors", state)
    assert_reads(tmp_path / "a.safetensors", state)


STATE = {
    "b": np.arange(6, dtype=np.float32).reshape(2, 3),
    "a": np.arange(5).astype(np.float16),
    "c": np.arange(5).astype(BFLOAT16),
    "d": np.zeros((0, 2), np.float32),
    "e": np.array(2.5, np.float32),
}


def test_tensors_start_at_multiples_of_eight_bytes(tmp_path):
    path = tmp_path / "a.safetensors"
    write(path, STATE)
    length = int.from_bytes(path.read_bytes()[:8], "little")
    header = json.loads(path.read_bytes()[8 : 8 + length])
    assert length % 8 == 0
    assert header["__metadata__"] == {"format": "pt"}
    assert list(header)[1:] == list(STATE)


def test_the_library_reads_what_is_written(tmp_path):
    safetensors = pytest.importorskip("safetensors")
    torch = pytest.importorskip("torch")
    write(tmp_path / "a.safetensors", STATE)
    with safetensors.safe_open(tmp_path / "a.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt"}
        for name, tensor in STATE.items():
            found = file.get_tensor(name)
            assert tuple(found.shape) == tensor.shape
            assert found.contiguous().view(-1).view(torch.uint8).numpy().tobytes() == bytes_of(
                tensor
            )


def test_what_the_library_writes_is_read(tmp_path):
    numpy = pytest.importorskip("safetensors.numpy")
    numpy.save_file(STATE, tmp_path / "a.safetensors", {"format": "pt"})
    assert_reads(tmp_path / "a.safetensors", STATE)


def test_a_tensor_of_another_shape_is_no_part_of_the_file(tmp_path):
    writer = SafetensorsWriter(tmp_path / "a.safetensors", infos_of(STATE))
    with pytest.raises(ValueError, match="b has"):
        writer.write("b", STATE["b"].T)
    with pytest.raises(ValueError, match="never written"):
        writer.finish()
