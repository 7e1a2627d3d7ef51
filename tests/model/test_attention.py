"""Attention under the prefix mask."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from glm_jax.model.attention import attend
from glm_jax.model.mask import prefix_mask


@given(length=st.integers(1, 12), prefix=st.lists(st.integers(0, 12), min_size=1, max_size=4))
@settings(deadline=None, max_examples=30)
def test_the_mask_is_the_prefix_and_the_past(length, prefix):
    prefix = [min(p, length) for p in prefix]
    mask = np.asarray(prefix_mask(jnp.asarray(prefix), length))
    expected = [[[[j <= i or j < p for j in range(length)] for i in range(length)]] for p in prefix]
    np.testing.assert_array_equal(mask, expected)


def random_heads(seed: int, batch=2, length=6, heads=2, head_size=4):
    keys = jax.random.split(jax.random.key(seed), 3)
    return [jax.random.normal(key, (batch, length, heads, head_size)) for key in keys]


def test_every_position_averages_what_it_sees():
    query, key, value = random_heads(0)
    prefix_length = np.array([2, 4])
    context = jax.jit(attend)(query, key, value, jnp.asarray(prefix_length))
    query, key, value = (np.asarray(array) for array in (query, key, value))
    for b, h, i in np.ndindex(2, 2, 6):
        seen = [j for j in range(6) if j <= i or j < prefix_length[b]]
        scores = np.array([query[b, i, h] @ key[b, j, h] / 2.0 for j in seen])
        weights = np.exp(scores) / np.exp(scores).sum()
        expected = sum(w * value[b, j, h] for w, j in zip(weights, seen, strict=True))
        np.testing.assert_allclose(context[b, i, h], expected, atol=1e-6)


def test_a_mask_says_which_keys_are_seen_and_one_that_shows_none_averages_all():
    query, key, value = (np.asarray(array) for array in random_heads(3))
    query = query[:, :4]  # four queries over six keys
    mask = np.random.default_rng(0).random((2, 1, 4, 6)) < 0.5
    mask[:, :, :, 2] = True
    mask[1, 0, 3] = False
    context = jax.jit(attend)(query, key, value, None, attention_mask=mask)
    for b, h, i in np.ndindex(2, 2, 4):
        scores = np.where(mask[b, 0, i], key[b, :, h] @ query[b, i, h] / 2.0, -np.inf)
        weights = np.exp(scores) if mask[b, 0, i].any() else np.ones(6)
        expected = weights / weights.sum() @ value[b, :, h]
        np.testing.assert_allclose(context[b, i, h], expected, atol=1e-6)


def test_dropout_keeps_the_mean_and_scales_what_is_left():
    query, key, _ = random_heads(1)
    value = jnp.ones((2, 6, 2, 4))
    prefix_length = jnp.array([6, 6])

    @jax.jit
    @jax.vmap
    def dropped(rng):
        return attend(query, key, value, prefix_length, dropout_rate=0.4, dropout_rng=rng)

    contexts = dropped(jax.random.split(jax.random.key(2), 500))
    assert np.std(contexts) > 0.1
    np.testing.assert_allclose(contexts.mean(axis=0), 1.0, atol=0.1)
