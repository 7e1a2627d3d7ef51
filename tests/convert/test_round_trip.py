"""What goes through our form comes back bit for bit, from every kind of checkpoint to all kinds."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from glm_jax.convert.convert import convert
from glm_jax.convert.open import open_source
from glm_jax.convert.report import Report
from tests.convert.tiny import BFLOAT16, HEADS, tiny_tensors, write_hugging_face, write_original


def run(source: Path, out: Path, kind: str, ranks: int = 1, *, published: bool = False) -> Report:
    return convert(
        source,
        out,
        kind,
        stages=lambda _description, _bytes: contextlib.nullcontext(lambda _done: None),
        model_parallel_size=ranks,
        num_attention_heads=HEADS,
        published=published,
    )


def assert_holds(folder: Path, tensors: Mapping[str, np.ndarray]) -> None:
    with open_source(folder, HEADS) as source:
        assert list(source.tensors) == list(tensors)
        for name, expected in tensors.items():
            found = source.read(name)
            assert found.dtype == expected.dtype and found.shape == expected.shape
            assert found.tobytes() == expected.tobytes(), name


@pytest.mark.parametrize("dtype", [np.float16, BFLOAT16, np.float32])
@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_original_to_ours_and_back(tmp_path, dtype, ranks):
    tensors = tiny_tensors(dtype)
    source = write_original(tmp_path / "source", tensors, ranks)
    run(source, tmp_path / "ours", "native")
    run(tmp_path / "ours", tmp_path / "back", "original", ranks)
    assert_holds(tmp_path / "ours", tensors)
    assert_holds(tmp_path / "back", tensors)
    for rank in range(ranks):
        name = f"5/mp_rank_{rank:02d}_model_states.pt"
        assert (tmp_path / "back" / name).read_bytes() == (source / name).read_bytes()


@pytest.mark.parametrize("dtype", [np.float16, BFLOAT16, np.float32])
@pytest.mark.parametrize("max_shard_bytes", [1 << 30, 1500], ids=["one file", "shards"])
def test_hugging_face_to_ours_and_back(tmp_path, dtype, max_shard_bytes):
    tensors = tiny_tensors(dtype)
    source = write_hugging_face(tmp_path / "source", tensors, max_shard_bytes)
    config = json.loads((source / "config.json").read_text()) | {"pool_token": "mine"}
    (source / "config.json").write_text(json.dumps(config))
    run(source, tmp_path / "ours", "native")
    run(tmp_path / "ours", tmp_path / "back", "huggingface", published=True)
    assert_holds(tmp_path / "ours", tensors)
    assert_holds(tmp_path / "back", tensors)
    assert json.loads((tmp_path / "back" / "config.json").read_text()) == config


@pytest.mark.parametrize("prefix", ["", "glm."])
@pytest.mark.parametrize("sharded", [False, True])
def test_torch_files_of_hugging_face_folders(tmp_path, prefix, sharded):
    torch = pytest.importorskip("torch")
    tensors = tiny_tensors()
    state = {f"{prefix}{name}": torch.from_numpy(tensor) for name, tensor in tensors.items()}
    source = tmp_path / "source"
    source.mkdir()
    files = {name: f"pytorch_model-{place % 2}.bin" for place, name in enumerate(state)}
    if sharded:
        for file in set(files.values()):
            part = {name: tensor for name, tensor in state.items() if files[name] == file}
            torch.save(part, source / file)
        index = json.dumps({"metadata": {}, "weight_map": files})
        (source / "pytorch_model.bin.index.json").write_text(index)
    else:
        torch.save(state, source / "pytorch_model.bin")
    (source / "config.json").write_text(json.dumps({"num_attention_heads": HEADS}))
    run(source, tmp_path / "ours", "native")
    run(tmp_path / "ours", tmp_path / "back", "huggingface")
    assert_holds(tmp_path / "back", tensors)
    with open_source(tmp_path / "back") as back:
        assert back.metadata.name_prefix == prefix


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_ranks_are_split_and_merged_without_our_form(tmp_path, ranks):
    tensors = tiny_tensors()
    source = write_original(tmp_path / "source", tensors, 2)
    run(source, tmp_path / "out", "original", ranks)
    assert_holds(tmp_path / "out", tensors)
    assert len(list((tmp_path / "out" / "5").iterdir())) == ranks


def test_original_to_hugging_face_and_back(tmp_path):
    tensors = tiny_tensors()
    source = write_original(tmp_path / "source", tensors, 4)
    run(source, tmp_path / "hub", "huggingface")
    run(tmp_path / "hub", tmp_path / "back", "original", 2)
    assert_holds(tmp_path / "hub", tensors)
    assert_holds(tmp_path / "back", tensors)


@pytest.mark.parametrize("ranks", [2, 4])
def test_merging_gives_the_recorded_tensors(tmp_path, shared, ranks):
    folder = shared / "goldens" / "b_model_parallel"
    run(folder / f"mp{ranks}", tmp_path / "ours", "native")
    with (
        np.load(folder / "merged_expected.npz") as expected,
        open_source(tmp_path / "ours") as ours,
    ):
        assert set(ours.tensors) == set(expected.files)
        assert ours.metadata.iteration == 1200
        for name in expected.files:
            assert ours.read(name).dtype == expected[name].dtype == np.float16
            assert ours.read(name).tobytes() == expected[name].tobytes(), name


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_splitting_gives_the_recorded_files(tmp_path, shared, ranks):
    torch = pytest.importorskip("torch")
    folder = shared / "goldens" / "b_model_parallel"
    run(folder / "mp1", tmp_path / "ours", "native")
    run(tmp_path / "ours", tmp_path / "split", "original", ranks)
    for rank in range(ranks):
        name = f"1200/mp_rank_{rank:02d}_model_states.pt"
        # Recorded files hold random states too, which only the unrestricted loader takes.
        expected = torch.load(folder / f"mp{ranks}" / name, weights_only=False)["module"]
        found = torch.load(tmp_path / "split" / name, weights_only=True)["module"]
        assert list(found) == list(expected)
        for key, tensor in expected.items():
            assert found[key].dtype == tensor.dtype and torch.equal(found[key], tensor), key
