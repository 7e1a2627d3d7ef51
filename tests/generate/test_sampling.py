"""Choosing tokens: against the original's recorded pieces, and against plain definitions."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glm_jax.generate.sampling import choose, repeating_tokens
from tests.parity.golden_pieces import filter_differs, processor_differs, read_pieces


@pytest.fixture(scope="module")
def pieces(shared):
    return read_pieces(shared / "goldens" / "g_generation")


def test_the_recorded_filters_keep_the_same_tokens(pieces):
    cases, arrays = pieces
    for number, case in enumerate(cases["top_k_logits"]):
        assert not filter_differs(number, case, arrays), case


def test_the_recorded_processors_forbid_the_same_tokens(pieces):
    cases, arrays = pieces
    for number, case in enumerate(cases["processors"]):
        assert not processor_differs(number, case, arrays), case


@given(
    tokens=st.lists(st.integers(0, 3), min_size=0, max_size=12),
    start=st.integers(0, 12),
    ngram=st.integers(0, 4),
)
@settings(max_examples=30)
def test_a_sequence_may_not_come_twice(tokens, start, ngram):
    start = min(start, len(tokens))
    padded = jnp.asarray([[*tokens, *[0] * (12 - len(tokens))]] * 2)
    found = repeating_tokens(
        padded, jnp.array([start, 0]), jnp.full(2, len(tokens)), jnp.array([ngram, 0]), 4
    )
    part = tokens[start:]
    seen = {tuple(part[i : i + ngram]) for i in range(len(part) - ngram + 1)} if ngram else set()
    last = part[len(part) - ngram + 1 :] if ngram > 1 else []
    complete = ngram and len(last) == ngram - 1
    forbidden = [complete and (*last, token) in seen for token in range(4)]
    np.testing.assert_array_equal(found[0], np.array(forbidden, bool))
    assert not np.any(found[1])


def test_each_row_draws_with_its_own_settings_and_key():
    logits = jnp.log(jnp.array([[0.5, 0.3, 0.15, 0.05]] * 4))
    rows = {
        "temperature": jnp.array([0.0, 1.0, 1.0, 2.0]),
        "top_k": jnp.array([0, 2, 0, 0]),
        "top_p": jnp.array([1.0, 1.0, 0.75, 1.0]),
    }
    draw = jax.jit(jax.vmap(lambda keys: choose(logits, keys=keys, **rows)))
    keys = jax.random.split(jax.random.key(0), (20_000, 4))
    counts = np.stack([np.bincount(row, minlength=4) for row in np.asarray(draw(keys)).T]) / 20_000
    warm = np.sqrt([0.5, 0.3, 0.15, 0.05])
    expected = [
        [1, 0, 0, 0],
        [0.625, 0.375, 0, 0],
        [0.625, 0.375, 0, 0],
        warm / warm.sum(),
    ]
    # Four standard deviations of a share of 20,000 draws are at most 0.0142.
    np.testing.assert_allclose(counts, expected, atol=0.0142, rtol=0)


def test_a_row_draws_the_same_whatever_stands_beside_it():
    logits = jax.random.normal(jax.random.key(1), (3, 50))
    keys = jax.random.split(jax.random.key(2), 3)
    together = choose(logits, jnp.ones(3), jnp.array([0, 5, 0]), jnp.array([1.0, 1.0, 0.5]), keys)
    alone = choose(logits[:1], jnp.ones(1), jnp.zeros(1, int), jnp.ones(1), keys[:1])
    assert together[0] == alone[0]
