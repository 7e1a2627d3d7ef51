"""Dimensions from shapes, and the two published faults that concern them."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from glm_jax.convert.checks import chinese_mask_fault
from glm_jax.convert.dimensions import Dimensions, measure
from glm_jax.convert.infer_config import infer_config
from glm_jax.convert.layouts.original import OriginalSource
from glm_jax.convert.weights import TensorInfo
from glm_jax.errors import UsageError
from glm_jax.model.config import GLMConfig
from glm_jax.model.relative import RelativeGLMConfig
from tests.convert.tiny import DIMENSIONS

VARIANTS = {
    "two-dimensional": DIMENSIONS,
    "one-dimensional": dataclasses.replace(DIMENSIONS, block_positions=False),
    "relative": dataclasses.replace(
        DIMENSIONS, position_rows=0, block_positions=False, relative_heads=2
    ),
}


def infos(dimensions: Dimensions) -> dict[str, TensorInfo]:
    half = np.dtype(np.float16)
    return {name: TensorInfo(shape, half) for name, shape in dimensions.shapes().items()}


@pytest.mark.parametrize("variant", VARIANTS)
def test_dimensions_follow_from_their_shapes(variant):
    dimensions = VARIANTS[variant]
    assert measure(infos(dimensions), "it", lambda _: "file") == dimensions


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_tensor_is_needed(variant):
    tensors = infos(VARIANTS[variant])
    for name in tensors:
        # Without it the network is a good one of the one-dimensional variant.
        if name == "transformer.block_position_embeddings.weight":
            continue
        rest = {other: info for other, info in tensors.items() if other != name}
        with pytest.raises(UsageError):
            measure(rest, "it", lambda _: "file")


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_shape_is_checked(variant):
    tensors = infos(VARIANTS[variant])
    for name, info in tensors.items():
        for axis in range(len(info.shape)):
            # These show a dimension that nothing else does.
            if axis == 0 and name in ("word_embeddings.weight", "transformer.r_w_bias"):
                continue
            if variant == "one-dimensional" and axis == 0 and "position_embeddings" in name:
                continue
            shape = tuple(n + 1 if at == axis else n for at, n in enumerate(info.shape))
            with pytest.raises(UsageError, match=r"has shape .* expected"):
                measure(tensors | {name: TensorInfo(shape, info.dtype)}, "it", lambda _: "file")


def test_errors_name_tensor_file_and_both_shapes():
    tensors = infos(DIMENSIONS)
    name = "transformer.layers.1.mlp.dense_4h_to_h.weight"
    tensors[name] = TensorInfo((8, 31), np.dtype(np.float16))
    with pytest.raises(UsageError) as error:
        measure(tensors, "it", lambda name: f"file of {name}")
    assert str(error.value) == f"{name} in file of {name} has shape [8, 31], expected [8, 32]"


def test_the_heads_of_published_models_are_64_wide():
    tensors = infos(dataclasses.replace(DIMENSIONS, hidden_size=192))
    config = infer_config(tensors)
    assert isinstance(config, GLMConfig)
    assert config.num_attention_heads == 3
    assert config.max_sequence_length == 6


@pytest.mark.parametrize(("heads", "sentence"), [(None, "give the number"), (3, "does not divide")])
def test_other_heads_must_be_given(heads, sentence):
    with pytest.raises(UsageError, match=rf"--num_attention_heads.*{sentence}|{sentence}"):
        infer_config(infos(DIMENSIONS), heads)


def test_the_relative_variant_shows_its_heads():
    tensors = infos(VARIANTS["relative"])
    config = infer_config(tensors)
    assert isinstance(config, RelativeGLMConfig)
    assert config.num_attention_heads == 2
    with pytest.raises(UsageError, match="but the checkpoint has 2 heads"):
        infer_config(tensors, 4)


@pytest.mark.parametrize("model", ["block2d_scale1", "block2d_scale8", "pos1d", "relative_xl"])
def test_recorded_models(shared, model):
    folder = shared / "goldens/a_forward" / model
    recorded = json.loads((folder / "config.json").read_text())
    with OriginalSource(folder / "ckpt") as source:
        config = infer_config(source.tensors, recorded["num_attention_heads"])
    for field in ("vocab_size", "num_layers", "hidden_size", "num_attention_heads"):
        assert getattr(config, field) == recorded[field]
    assert isinstance(config, RelativeGLMConfig) == (model == "relative_xl")
    if isinstance(config, GLMConfig):
        assert config.max_sequence_length == recorded["max_sequence_length"]
        assert config.block_position_encoding == (model != "pos1d")


@pytest.mark.parametrize("rows", [50048, 50304])
def test_the_copied_row_of_glm_10b_chinese_is_found(rows):
    embedding = np.random.default_rng(0).normal(size=(rows, 4)).astype(np.float16)
    assert chinese_mask_fault(embedding) is None
    embedding[50009] = embedding[50007]
    fault = chinese_mask_fault(embedding)
    assert (fault is not None) == (rows == 50048)
    assert fault is None or ("50007" in fault and "50009" in fault)
    embedding[50007] = embedding[50009] = 0
    assert chinese_mask_fault(embedding) is None
