"""The variant with relative positions."""

from __future__ import annotations

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glm_jax.errors import UsageError
from glm_jax.model import RelativeGLM, RelativeGLMConfig
from glm_jax.model.intermediates import apply_with_stream
from glm_jax.model.relative import shift_to_keys

CONFIG = RelativeGLMConfig(vocab_size=64, num_layers=2, hidden_size=16, num_attention_heads=2)
MODEL = RelativeGLM(CONFIG)
BATCH, LENGTH = 2, 10
CAUSAL = np.zeros(1, int)


def some_tokens() -> np.ndarray:
    return np.random.default_rng(0).integers(0, CONFIG.vocab_size, (BATCH, LENGTH))


@functools.cache
def some_params() -> Any:
    params = nn.unbox(jax.jit(MODEL.init)(jax.random.key(0), some_tokens(), CAUSAL)["params"])
    # Larger than the real initial values, so that attention is far from uniform.
    frequency = params["inverse_frequency"]
    params = jax.tree.map(lambda array: 5.0 * array, params) | {"inverse_frequency": frequency}
    for seed, name in enumerate(("content_bias", "distance_bias")):
        params[name] = jax.random.normal(jax.random.key(seed), params[name].shape)
    return params


def run(tokens, prefix_length, attention_mask=None, memory=None):
    return jitted(some_params(), tokens, prefix_length, attention_mask, memory)


@jax.jit
def jitted(params, *inputs):
    return apply_with_stream(MODEL, params, *inputs)


@given(length=st.integers(1, 5), more=st.integers(0, 4))
@settings(deadline=None, max_examples=15)
def test_every_visible_key_gets_the_score_of_its_distance(length, more):
    places = length + more
    distance = np.arange(places - 1, -1, -1.0)
    by_distance = jnp.broadcast_to(distance, (1, 1, length, places))
    by_key = np.asarray(shift_to_keys(by_distance))[0, 0]
    for query in range(length):
        for key in range(more + query + 1):
            assert by_key[query, key] == more + query - key


def test_segments_with_memory_give_what_one_pass_gives():
    tokens = some_tokens()
    whole, stream = run(tokens, CAUSAL)
    first, memory = run(tokens[:, :6], CAUSAL)
    second, rest = run(tokens[:, 6:], CAUSAL, None, memory[:-1])
    np.testing.assert_allclose(first, whole[:, :6], atol=1e-5, rtol=0)
    np.testing.assert_allclose(second, whole[:, 6:], atol=1e-5, rtol=0)
    np.testing.assert_allclose(rest, stream[:, :, 6:], atol=1e-5, rtol=0)


def test_only_distances_count():
    """Behind a memory that the mask hides, a text is read as at the start."""
    tokens = some_tokens()
    alone, _ = run(tokens[:, 4:], CAUSAL)
    sees = np.tril(np.ones((LENGTH, LENGTH), bool))
    sees[4:, :4] = False
    behind, _ = run(tokens, CAUSAL, sees[None, None])
    np.testing.assert_allclose(behind[:, 4:], alone, atol=1e-5, rtol=0)


def test_the_order_of_the_past_matters():
    tokens = some_tokens()
    swapped = tokens[:, [1, 0, *range(2, LENGTH)]]
    difference = np.abs(run(tokens, CAUSAL)[0] - run(swapped, CAUSAL)[0]).max(axis=(0, 2))
    assert np.all(difference > 1e-4)


def test_a_prefix_is_seen_by_all_and_the_future_by_none():
    tokens = some_tokens()
    other = tokens.copy()
    other[:, 3] = (other[:, 3] + 1) % CONFIG.vocab_size
    for prefix, seen_from in ((0, 3), (4, 0)):
        results = [np.asarray(run(t, np.array([prefix]))[0]) for t in (tokens, other)]
        differs = np.abs(results[0] - results[1]).max(axis=(0, 2)) > 0
        np.testing.assert_array_equal(differs, np.arange(LENGTH) >= seen_from)


def test_logits_are_products_with_the_word_embedding():
    tokens = some_tokens()
    hidden, _ = run(tokens, CAUSAL)
    logits: Any = MODEL.apply({"params": some_params()}, tokens, CAUSAL)
    expected = hidden @ some_params()["word_embedding"].T
    np.testing.assert_allclose(logits, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("field", "value"),
    [("num_layers", 0), ("hidden_size", 2.5), ("num_attention_heads", 3), ("compute_dtype", "x")],
)
def test_an_impossible_value_is_named_with_its_field(field, value):
    with pytest.raises(UsageError, match=rf"model\.{field}.*{value}"):
        RelativeGLMConfig(**(vars(CONFIG) | {field: value}))
