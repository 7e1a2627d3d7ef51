"""Full masks, one-dimensional positions, one prefix for all, and the recorded residual stream."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from glm_jax.model import GLM, GLMConfig
from glm_jax.model.attention.mask import prefix_mask
from glm_jax.model.intermediates import apply_with_stream

CONFIG = GLMConfig(
    vocab_size=64, num_layers=3, hidden_size=16, num_attention_heads=2, max_sequence_length=20
)
ONE_DIMENSIONAL = dataclasses.replace(CONFIG, block_position_encoding=False)
BATCH, LENGTH = 2, 8
TOLERANCE = 1e-5


def some_inputs() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    draw = np.random.default_rng(0)
    tokens = draw.integers(0, CONFIG.vocab_size, (BATCH, LENGTH))
    return tokens, draw.integers(0, 20, (BATCH, 2, LENGTH)), np.array([3, 5])


@functools.cache
def some_params(config: GLMConfig = CONFIG) -> Any:
    initial = jax.jit(GLM(config).init)(jax.random.key(0), *some_inputs())["params"]
    # Larger than the real initial values, so that attention is far from uniform.
    return jax.tree.map(lambda array: 5.0 * array, nn.unbox(initial))


def forward(config, *inputs, attention_mask=None):
    return run(GLM(config), some_params(config), *inputs, attention_mask=attention_mask)


@functools.partial(jax.jit, static_argnums=0)
def run(model, params, *inputs, attention_mask):
    return model.apply({"params": params}, *inputs, attention_mask=attention_mask)


@pytest.mark.parametrize("dtype", [bool, np.int32])
def test_a_mask_takes_the_place_of_the_prefix(dtype):
    tokens, position_ids, prefix_length = some_inputs()
    mask = np.asarray(prefix_mask(jnp.asarray(prefix_length), LENGTH)).astype(dtype)
    expected = forward(CONFIG, tokens, position_ids, prefix_length)
    other = np.zeros(1, int)
    masked = forward(CONFIG, tokens, position_ids, other, attention_mask=mask)
    np.testing.assert_allclose(masked, expected, atol=TOLERANCE, rtol=0)


def test_one_mask_serves_the_whole_batch():
    tokens, position_ids, prefix_length = some_inputs()
    mask = np.random.default_rng(1).random((1, 1, LENGTH, LENGTH)) < 0.5
    one = forward(CONFIG, tokens, position_ids, prefix_length, attention_mask=mask)
    each = np.broadcast_to(mask, (BATCH, 1, LENGTH, LENGTH))
    many = forward(CONFIG, tokens, position_ids, prefix_length, attention_mask=each)
    np.testing.assert_allclose(one, many, atol=TOLERANCE, rtol=0)


def test_one_prefix_length_is_for_all_examples():
    tokens, position_ids, _ = some_inputs()
    one = forward(CONFIG, tokens, position_ids, np.array([4]))
    each = forward(CONFIG, tokens, position_ids, np.full(BATCH, 4))
    np.testing.assert_array_equal(one, each)


def test_one_dimensional_positions_have_one_table_and_read_the_first_row():
    tokens, position_ids, prefix_length = some_inputs()
    params = some_params(ONE_DIMENSIONAL)
    assert "block_position_embedding" not in params
    assert params["position_embedding"].shape == (CONFIG.max_sequence_length, CONFIG.hidden_size)
    both = forward(ONE_DIMENSIONAL, tokens, position_ids, prefix_length)
    first = forward(ONE_DIMENSIONAL, tokens, position_ids[:, 0], prefix_length)
    np.testing.assert_array_equal(both, first)
    position_ids[:, 1] = 0
    np.testing.assert_array_equal(
        both, forward(ONE_DIMENSIONAL, tokens, position_ids, prefix_length)
    )


@pytest.mark.parametrize("remat", ["none", "full"])
def test_the_stream_begins_with_the_embeddings_and_ends_before_the_final_layernorm(remat):
    model, inputs = GLM(dataclasses.replace(CONFIG, remat=remat)), some_inputs()
    params = some_params()
    hidden, stream = apply_with_stream(model, params, *inputs)
    tokens, position_ids, _ = inputs
    embedding = (
        params["word_embedding"][tokens]
        + params["position_embedding"][position_ids[:, 0]]
        + params["block_position_embedding"][position_ids[:, 1]]
    )
    assert stream.shape == (CONFIG.num_layers + 1, BATCH, LENGTH, CONFIG.hidden_size)
    np.testing.assert_array_equal(stream[0], embedding)
    norm = nn.LayerNorm(epsilon=CONFIG.layernorm_epsilon)
    normed: Any = norm.apply({"params": params["final_layernorm"]}, stream[-1])
    np.testing.assert_allclose(hidden, normed, atol=TOLERANCE, rtol=0)


def test_every_layer_goes_on_from_the_stream_before_it():
    params, inputs = some_params(), some_inputs()
    _, stream = apply_with_stream(GLM(CONFIG), params, *inputs)
    fewer = dataclasses.replace(CONFIG, num_layers=2)
    first_layers = params | {"layers": jax.tree.map(lambda array: array[:2], params["layers"])}
    _, start = apply_with_stream(GLM(fewer), first_layers, *inputs)
    np.testing.assert_allclose(stream[:3], start, atol=TOLERANCE, rtol=0)
