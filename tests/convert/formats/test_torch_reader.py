"""Torch files: both formats, any view of a storage, and what we write ourselves."""

from __future__ import annotations

import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from glm_jax.convert.formats.restricted_pickle import Inert
from glm_jax.convert.formats.torch_reader import TorchFile
from glm_jax.convert.formats.torch_writer import Announced, TorchWriter
from glm_jax.convert.layouts.state_dict import read_state_dict
from glm_jax.convert.weights import TensorInfo
from glm_jax.errors import UsageError
from tests.convert.hostile_pickles import with_random_states
from tests.convert.tiny import (
    BFLOAT16,
    bytes_of,
    legacy_bytes,
    legacy_checkpoint,
    tensor_opcodes,
    text_opcodes,
    tiny_tensors,
    zip_bytes,
    zip_checkpoint,
)

DTYPES = [np.dtype(np.float16), BFLOAT16, np.dtype(np.float32)]


def read_tensors(path: Path) -> dict[str, np.ndarray]:
    file = TorchFile(path)
    tensors = {name: file.read(tensor) for name, tensor in read_state_dict(file)[0].items()}
    file.close()
    return tensors


def assert_same(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert list(found) == list(expected)
    for name, tensor in expected.items():
        assert (found[name].dtype, found[name].shape) == (tensor.dtype, tensor.shape)
        assert found[name].flags.c_contiguous and found[name].flags.writeable
        assert bytes_of(found[name]) == bytes_of(tensor), name


@pytest.mark.parametrize("make", [zip_checkpoint, legacy_checkpoint])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_both_formats_read_exactly(make, dtype, tmp_path):
    path = tmp_path / "weights.pt"
    path.write_bytes(make(tiny_tensors(dtype)))
    assert_same(read_tensors(path), tiny_tensors(dtype))
    assert TorchFile(path).content["iteration"] == 5


def test_random_states_and_training_objects_stay_inert(tmp_path):
    path = tmp_path / "weights.pt"
    tensors = tiny_tensors()
    storages = {str(key): bytes_of(tensor) for key, tensor in enumerate(tensors.values())}
    path.write_bytes(zip_bytes(with_random_states(tensors), storages))
    content = TorchFile(path).content
    assert isinstance(content["args"], Inert) and isinstance(content["loss_scaler"], Inert)
    assert isinstance(content["rng"]["np_rng_state"][1], Inert)
    assert content["rng"]["np_rng_state"][0] == "MT19937"
    assert_same(read_tensors(path), tensors)


@st.composite
def views(draw) -> tuple[tuple[int, ...], list[int], list[slice]]:
    """A shape, an order of its axes and a part of each axis."""
    shape = tuple(draw(st.lists(st.integers(1, 5), max_size=3)))
    axes = draw(st.permutations(range(len(shape))))
    parts = [
        slice(
            draw(st.integers(0, length - 1)), draw(st.integers(1, length)), draw(st.integers(1, 3))
        )
        for length in shape
    ]
    return shape, list(axes), parts


@pytest.mark.parametrize("legacy", [False, True])
@given(view=views())
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_view_of_a_storage_reads_right(legacy, view, tmp_path):
    shape, axes, parts = view
    storage = np.arange(np.prod(shape, dtype=int), dtype=np.float32).reshape(shape)
    tensor = storage[(*parts, ...)].transpose(axes)
    # NumPy gives arrays of one element or none strides of its own.
    address = tensor.__array_interface__["data"][0] - storage.__array_interface__["data"][0]
    opcodes = tensor_opcodes(
        "0",
        "FloatStorage",
        storage.size,
        tensor.shape,
        strides=tuple(stride // 4 for stride in tensor.strides),
        offset=address // 4 if tensor.size else 0,
        legacy=legacy,
    )
    pickled = b"\x80\x02}" + text_opcodes("tensor") + opcodes + b"s."
    path = tmp_path / "view.pt"
    data = storage.tobytes()
    if legacy:
        path.write_bytes(legacy_bytes(pickled, {"0": (storage.size, data)}))
    else:
        path.write_bytes(zip_bytes(pickled, {"0": data}))
    assert_same(read_tensors(path), {"tensor": np.ascontiguousarray(tensor).reshape(tensor.shape)})


@pytest.mark.parametrize("first", ["head", "turned"])
def test_a_damaged_storage_is_found_by_all_its_tensors(first, tmp_path):
    """Also by those that read another part of it."""
    storage = np.arange(12, dtype=np.float32)
    pickled = (
        b"\x80\x02}("
        + text_opcodes("head")
        + tensor_opcodes("0", "FloatStorage", 12, (2,))
        + text_opcodes("turned")
        + tensor_opcodes("0", "FloatStorage", 12, (2, 2), strides=(1, 2))
        + b"u."
    )
    data = zip_bytes(pickled, {"0": storage.tobytes()})
    path = tmp_path / "weights.pt"
    place = data.index(storage.tobytes()) + 11 * 4
    path.write_bytes(data[:place] + b"\x01" + data[place + 1 :])
    file = TorchFile(path)
    with pytest.raises(UsageError, match=r"storage 0 of .*weights.pt is damaged"):
        file.read(read_state_dict(file)[0][first])


def test_what_git_did_not_fetch_is_named(tmp_path):
    path = tmp_path / "weights.pt"
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    with pytest.raises(UsageError, match="git lfs pull"):
        TorchFile(path)


def write(path: Path, tensors: dict[str, np.ndarray], **more: object) -> None:
    infos = {name: TensorInfo(tensor.shape, tensor.dtype) for name, tensor in tensors.items()}
    announced = OrderedDict((name, Announced(name, info)) for name, info in infos.items())
    writer = TorchWriter(path, {"module": announced, **more})
    for name in sorted(tensors):
        writer.write(name, tensors[name])
    writer.finish()


MIXED = {
    "matrix": np.arange(6, dtype=np.float32).reshape(2, 3),
    "half": np.arange(5).astype(np.float16),
    "brain": np.arange(5).astype(BFLOAT16),
    "scalar": np.array(3.5, np.float32),
    "empty": np.zeros((0, 4), np.float32),
    "cube": np.arange(24).astype(np.float16).reshape(2, 3, 4),
}
MORE = {
    "iteration": 1 << 40,
    "negative": -5,
    "nothing": None,
    "truth": [True, False],
    "text": "温度 \u2028",
    "nested": {"a": [1, {"b": None}]},
}


def test_written_files_read_back(tmp_path):
    path = tmp_path / "weights.pt"
    write(path, MIXED, **MORE)
    assert_same(read_tensors(path), MIXED)
    content = TorchFile(path).content
    assert {name: content[name] for name in MORE} == MORE


def test_written_archives_are_sound_and_aligned(tmp_path):
    path = tmp_path / "weights.pt"
    write(path, MIXED)
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        infos = archive.infolist()
        assert {info.compress_type for info in infos} == {zipfile.ZIP_STORED}
        assert infos[0].filename == "weights/data.pkl"
    data = path.read_bytes()
    for info in infos:
        name, extra = (
            int.from_bytes(data[info.header_offset + at : info.header_offset + at + 2], "little")
            for at in (26, 28)
        )
        assert (info.header_offset + 30 + name + extra) % 64 == 0


def test_equal_content_gives_equal_files(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        write(tmp_path / folder / "weights.pt", MIXED)
    assert (tmp_path / "a/weights.pt").read_bytes() == (tmp_path / "b/weights.pt").read_bytes()


@pytest.mark.parametrize("mmap", [False, True])
def test_torch_reads_what_is_written(mmap, tmp_path):
    torch = pytest.importorskip("torch")
    path = tmp_path / "weights.pt"
    write(path, MIXED, **MORE)
    loaded = torch.load(path, weights_only=True, mmap=mmap)
    assert {name: loaded[name] for name in MORE} == MORE
    for name, tensor in MIXED.items():
        found = loaded["module"][name]
        assert tuple(found.shape) == tensor.shape and str(found.dtype)[6:] == tensor.dtype.name
        assert found.contiguous().view(-1).view(torch.uint8).numpy().tobytes() == bytes_of(tensor)


@pytest.mark.parametrize("new_format", [True, False])
def test_what_torch_writes_is_read(new_format, tmp_path):
    torch = pytest.importorskip("torch")
    generator = torch.Generator().manual_seed(0)
    whole = torch.randn(6, 8, generator=generator)
    state = {
        "whole": whole,
        "turned": whole.t(),
        "column": whole[:, 3],
        "part": whole[1:4, ::2],
        "brain": whole.bfloat16(),
        "half": torch.nn.Parameter(whole.half()),
        "scalar": torch.tensor(2.0),
        "empty": torch.zeros(0, 3),
        "numbers": torch.arange(5),
        "bits": torch.tensor([True, False]),
    }
    path = tmp_path / "weights.pt"
    torch.save(state, path, _use_new_zipfile_serialization=new_format)
    found = read_tensors(path)
    for name, tensor in state.items():
        plain = tensor.detach().contiguous()
        assert found[name].shape == tuple(plain.shape)
        assert str(plain.dtype)[6:] == found[name].dtype.name
        assert found[name].tobytes() == plain.view(-1).view(torch.uint8).numpy().tobytes()


def test_recorded_files_read_as_torch_reads_them(shared):
    torch = pytest.importorskip("torch")
    paths = sorted((shared / "goldens").rglob("*.pt")) + sorted((shared / "goldens").rglob("*.bin"))
    assert len(paths) > 10
    for path in paths:
        loaded = torch.load(path, weights_only=False)
        state = loaded.get("module", loaded)
        assert_same(
            read_tensors(path),
            {name: t.numpy() for name, t in state.items() if isinstance(t, torch.Tensor)},
        )
