"""Initial parameters depend on the dimensions and the key alone."""

from __future__ import annotations

import dataclasses

import flax.linen as nn
import jax
import numpy as np
import pytest

from glm_jax.model import GLM, GLMConfig
from glm_jax.model.initial import abstract_params, initial_params
from glm_jax.parallel.mesh import MeshConfig, make_mesh

CONFIG = GLMConfig(
    vocab_size=32,
    num_layers=3,
    hidden_size=16,
    num_attention_heads=2,
    max_sequence_length=8,
)


@pytest.mark.parametrize("changed", [{"scan_layers": False}, {"attention": "by_head"}])
def test_how_the_network_is_computed_changes_nothing(changed):
    model = GLM(dataclasses.replace(CONFIG, **changed))
    key = jax.random.key(3)
    expected = nn.unbox(jax.jit(lambda key: initial_params(GLM(CONFIG), key))(key))
    found = nn.unbox(jax.jit(lambda key: initial_params(model, key))(key))
    # As the network itself would draw them.
    tokens = np.zeros((1, 1), np.int32)
    positions = np.zeros((1, 2, 1), np.int32)
    own = nn.unbox(jax.jit(model.init)(key, tokens, positions, np.zeros(1, np.int32)))["params"]
    assert jax.tree.structure(expected) == jax.tree.structure(found) == jax.tree.structure(own)
    for one, other, third in zip(*map(jax.tree.leaves, (expected, found, own)), strict=True):
        np.testing.assert_array_equal(one, other)
        np.testing.assert_array_equal(one, third)


def test_shapes_and_values_share_what_is_traced(monkeypatch):
    traced, init = [], GLM.init

    def counted(model, *arguments):
        traced.append(model)
        return init(model, *arguments)

    monkeypatch.setattr(GLM, "init", counted)
    config = dataclasses.replace(CONFIG, vocab_size=48)
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    shapes, again = (abstract_params(GLM(config), mesh) for _ in range(2))
    assert jax.tree.structure(shapes) == jax.tree.structure(again)
    found = nn.unbox(jax.jit(lambda key: initial_params(GLM(config), key))(jax.random.key(0)))
    assert jax.tree.map(lambda leaf: leaf.shape, shapes) == jax.tree.map(lambda a: a.shape, found)
    assert len(traced) == 1
