"""Weights of every kind of checkpoint, loaded: bit for bit, in any dtype, over any mesh."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from glm_jax.convert.array_layouts import to_native
from glm_jax.convert.convert import convert
from glm_jax.convert.dimensions import Dimensions
from glm_jax.convert.load import load
from glm_jax.convert.names import find
from glm_jax.errors import UsageError
from glm_jax.io.files import copy_folder, remove_folder
from glm_jax.model import GLM, GLMConfig
from glm_jax.model.relative import RelativeGLM
from glm_jax.parallel.mesh import MeshConfig, make_mesh
from tests.convert.tiny import BFLOAT16, HEADS, tiny_tensors, write_hugging_face, write_original


def to_ours(source: Path, out: Path) -> Path:
    def quiet(_description: str, _bytes: int):
        return contextlib.nullcontext(lambda _done: None)

    convert(source, out, "native", stages=quiet, num_attention_heads=HEADS)
    return out


def assert_params(params: Any, tensors: Mapping[str, np.ndarray], dtype: Any = np.float32) -> None:
    """Every tensor is in the tree, upcast without a change, and nothing else is."""
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == sum(
        tensor.size for tensor in tensors.values()
    )
    for name, tensor in tensors.items():
        entry, layer = find(name) or pytest.fail(name)
        leaf = params
        for part in entry.native.split("/"):
            leaf = leaf[part]
        assert leaf.dtype == dtype
        found = leaf if layer is None else leaf[layer]
        expected = to_native(entry.layout, tensor).astype(dtype)
        np.testing.assert_array_equal(np.asarray(found), expected, err_msg=name)


@pytest.fixture(params=["original", "hugging face", "ours from original", "ours from hugging face"])
def folder(request, tmp_path) -> Path:
    write = write_hugging_face if "hugging" in request.param else write_original
    source = write(tmp_path / "source", tiny_tensors())
    return to_ours(source, tmp_path / "ours") if "ours" in request.param else source


def test_every_kind_loads_bit_for_bit(folder):
    model, params = load(folder, num_attention_heads=HEADS)
    assert isinstance(model, GLM)
    assert model.config == GLMConfig(24, 2, 8, HEADS, 6)
    assert_params(params, tiny_tensors())
    positions = jnp.zeros((1, 2, 3), jnp.int32)
    logits: Any = model.apply(
        {"params": params}, jnp.ones((1, 3), jnp.int32), positions, jnp.array([3])
    )
    assert logits.shape == (1, 3, 24) and jnp.isfinite(logits).all()


def test_every_kind_loads_by_url_and_through_dots(folder, tmp_path, monkeypatch):
    url = f"memory://{tmp_path.name}/a run"
    copy_folder(folder, url)
    assert_params(load(url, num_attention_heads=HEADS)[1], tiny_tensors())
    remove_folder(url)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    relative = f"../{folder.name}/"
    assert_params(load(relative, num_attention_heads=HEADS)[1], tiny_tensors())


@pytest.mark.parametrize("stored", [BFLOAT16, np.float32], ids=str)
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16], ids=str)
def test_dtypes(tmp_path, stored, dtype):
    tensors = tiny_tensors(stored)
    source = write_original(tmp_path / "source", tensors)
    for folder in (source, to_ours(source, tmp_path / "ours")):
        _, params = load(folder, num_attention_heads=HEADS, dtype=dtype)
        assert_params(params, tensors, jnp.dtype(dtype))


def test_heads_are_recorded_by_ours_only(tmp_path):
    source = write_original(tmp_path / "source", tiny_tensors())
    with pytest.raises(UsageError, match="hidden size"):
        load(source)
    ours = to_ours(source, tmp_path / "ours")
    assert load(ours)[0].config.num_attention_heads == HEADS
    with pytest.raises(UsageError, match="given as 2"):
        load(ours, num_attention_heads=2)


@pytest.mark.parametrize("variant", ["one position", "relative"])
def test_variants(tmp_path, variant):
    relative = variant == "relative"
    shape = (0, False, HEADS) if relative else (6, False, None)
    tensors = tiny_tensors(dimensions=Dimensions(24, 2, 8, *shape))
    source = write_original(tmp_path / "source", tensors)
    for folder in (source, to_ours(source, tmp_path / "ours")):
        model, params = load(folder, num_attention_heads=HEADS)
        assert isinstance(model, RelativeGLM if relative else GLM)
        assert_params(params, tensors)


def test_parameters_lie_where_the_mesh_says(folder):
    devices = jax.devices()
    mesh = make_mesh(MeshConfig(data=1, fsdp=1, tensor=len(devices)), devices)
    _, params = load(folder, num_attention_heads=HEADS, mesh=mesh)
    for leaf in jax.tree.leaves(params):
        assert leaf.sharding.mesh == mesh
    assert_params(params, tiny_tensors())


def test_damage_in_ours_is_found(tmp_path):
    source = write_original(tmp_path / "source", tiny_tensors())
    ours = to_ours(source, tmp_path / "ours")
    path = ours / "checkpoints/5/state/params.layers.mlp.up.kernel/c/1/0/0"
    damaged = bytearray(path.read_bytes())
    damaged[7] ^= 4
    path.write_bytes(damaged)
    with pytest.raises(UsageError, match=r"layers\.1\.mlp\.dense_h_to_4h\.weight is damaged"):
        load(ours)


def test_a_record_that_does_not_fit_is_refused(tmp_path):
    source = write_original(tmp_path / "source", tiny_tensors())
    ours = to_ours(source, tmp_path / "ours")
    path = ours / "checkpoints/5/record/metadata"
    record = json.loads(path.read_text())
    record["configuration"]["model"]["vocab_size"] = 25
    path.write_text(json.dumps(record))
    with pytest.raises(
        UsageError, match=r"says model\.vocab_size = 25, but its parameters show 24"
    ):
        load(ours)


def test_no_checkpoint_is_one_sentence(tmp_path):
    with pytest.raises(UsageError, match="is no checkpoint: it has no checkpoints/"):
        load(tmp_path)
    with pytest.raises(UsageError, match="no such file or folder"):
        load(tmp_path / "nowhere")


@pytest.mark.parametrize(
    "name", ["a_forward/block2d_scale1", "a_forward/pos1d", "a_forward/relative_xl"]
)
def test_recorded_checkpoints_load(shared, tmp_path, name):
    folder = shared / "goldens" / name
    heads = json.loads((folder / "config.json").read_text())["num_attention_heads"]
    _, direct = load(folder / "ckpt", num_attention_heads=heads)

    def quiet(_description: str, _bytes: int):
        return contextlib.nullcontext(lambda _done: None)

    convert(folder / "ckpt", tmp_path / "o", "native", stages=quiet, num_attention_heads=heads)
    _, through = load(tmp_path / "o")
    jax.tree.map(np.testing.assert_array_equal, direct, through)
