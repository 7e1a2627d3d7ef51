"""The table of names: both directions, and sharing over ranks."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glm_jax.convert.array_layouts import Layout, to_native, to_original
from glm_jax.convert.formats.torch_reader import TorchFile
from glm_jax.convert.layouts.state_dict import read_state_dict
from glm_jax.convert.names import (
    TABLE,
    Entry,
    find,
    merge,
    merged_shape,
    original_order,
    split,
    splits,
)

WEIGHT = "transformer.layers.3.attention.query_key_value.weight"


def whole_tensor(entry: Entry, ranks: int, size: int) -> np.ndarray:
    """A tensor of distinct numbers that the ranks can share."""
    vector = entry.original.endswith(("bias", "weight_scale")) or "layernorm" in entry.original
    shape = [size] * (1 if vector else 2)
    shape[1 if entry.layout is Layout.PAIRED_ROWS else 0] *= entry.layout.parts
    if entry.split_axis is not None:
        shape[entry.split_axis] = entry.layout.parts * ranks * size
    return np.arange(np.prod(shape)).reshape(shape)


@given(entry=st.sampled_from(TABLE), ranks=st.integers(1, 5), size=st.integers(1, 4))
def test_merging_undoes_splitting(entry, ranks, size):
    if entry.original in ("transformer.r_w_bias", "transformer.r_r_bias"):
        return
    whole = whole_tensor(entry, ranks, size)
    assert splits(entry, whole.shape, ranks)
    shares = [np.array(share) for share in split(entry, whole, ranks)]
    assert len(shares) == ranks
    assert all(merged_shape(entry, share.shape, ranks) == whole.shape for share in shares)
    np.testing.assert_array_equal(merge(entry, iter(shares), ranks), whole)


def test_each_rank_has_its_heads_of_query_key_and_value():
    found = find(WEIGHT)
    assert found is not None
    whole = np.repeat(np.arange(12), 2).reshape(12, 2)  # rows: q0..q3, k0..k3, v0..v3
    first, second = split(found[0], whole, 2)
    assert first[:, 0].tolist() == [0, 1, 4, 5, 8, 9]
    assert second[:, 0].tolist() == [2, 3, 6, 7, 10, 11]


def test_thirds_must_be_divisible_each():
    found = find(WEIGHT)
    assert found is not None
    assert not splits(found[0], (12, 4), 3)  # 12 rows divide by 3, but thirds of 4 don't
    assert splits(found[0], (12, 4), 4)


@given(entry=st.sampled_from(TABLE), size=st.integers(1, 4))
def test_layouts_turn_back(entry, size):
    whole = whole_tensor(entry, 2, size)
    np.testing.assert_array_equal(to_original(entry.layout, to_native(entry.layout, whole)), whole)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "transformer",
        "transformer.layers.0",
        "transformer.layers.{layer}.mlp.dense_h_to_4h.bias",
        "transformer.layers.00.mlp.dense_h_to_4h.bias",
        "transformer.layers.-1.mlp.dense_h_to_4h.bias",
        "transformer.layers.١.mlp.dense_h_to_4h.bias",
        "transformer.layers.123456.mlp.dense_h_to_4h.bias",
        "transformer.layers.0.mlp.dense_h_to_4h.bias\n",
        "transformer.layers.0.layers.1.mlp.dense_h_to_4h.bias",
        " word_embeddings.weight",
        "layers.0.mlp.dense_h_to_4h.bias",
    ],
)
def test_other_names_are_foreign(name):
    assert find(name) is None


@pytest.mark.parametrize("model", ["block2d_scale1", "pos1d", "relative_xl"])
def test_the_order_is_that_of_the_original(shared, model):
    path = next((shared / "goldens/a_forward" / model / "ckpt").rglob("*.pt"))
    file = TorchFile(path)
    names = list(read_state_dict(file)[0])
    file.close()
    entries = [found for found in map(find, names) if found is not None]
    assert len(entries) == len(names)
    num_layers = 1 + max(layer or 0 for _, layer in entries)
    assert original_order({entry.native for entry, _ in entries}, num_layers) == names
