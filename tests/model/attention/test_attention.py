"""Attention under the prefix mask, by plain operations, and the choice of its kind."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glm_jax.errors import UsageError
from glm_jax.model.attention.choose import attention_function, check_attention
from glm_jax.model.attention.cudnn import gpu_attention
from glm_jax.model.attention.mask import prefix_mask
from glm_jax.model.attention.xla import attend
from glm_jax.model.dropout import Dropout
from tests.model.attention.naive_attention import naive_attention


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


KINDS = ["xla", "by_head"]


@pytest.mark.parametrize("kind", KINDS)
def test_dropout_keeps_the_mean_and_scales_what_is_left(kind):
    query, key, _ = random_heads(1)
    value = jnp.ones((2, 6, 2, 4))

    @jax.jit
    @jax.vmap
    def dropped(key_of_run):
        dropout = Dropout(key_of_run).probabilities(0.4, 2, 2, 6)
        return attention_function(kind)(query, key, value, jnp.array([6, 6]), dropout=dropout)

    contexts = dropped(jax.random.split(jax.random.key(2), 500))
    assert np.std(contexts) > 0.1
    np.testing.assert_allclose(contexts.mean(axis=0), 1.0, atol=0.1)


def test_one_head_at_a_time_drops_what_all_at_once_drop():
    query, key, value = random_heads(5)
    dropout = Dropout(jax.random.key(1), first_example=3, first_head=4).probabilities(0.3, 2, 2, 6)

    def of_kind(kind):
        context, pull_back = jax.vjp(
            lambda q, k, v: attention_function(kind)(q, k, v, jnp.array([2, 5]), dropout=dropout),
            *(query, key, value),
        )
        return context, *pull_back(jnp.cos(jnp.arange(context.size)).reshape(context.shape))

    for one, all_heads in zip(of_kind("by_head"), of_kind("xla"), strict=True):
        allowed = FLOAT32_TOLERANCE * max(1, np.abs(all_heads).max())
        np.testing.assert_allclose(one, all_heads, rtol=0, atol=allowed)


FLOAT32_TOLERANCE = 5e-6  # of the largest number, which is at least 1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("length", "start"), [(12, 0), (4, 0), (4, 3), (6, 6)])
@given(prefix=st.lists(st.integers(0, 12), min_size=2, max_size=2))
@settings(max_examples=5)
def test_plain_attention_and_its_gradients_are_those_of_the_mask(kind, length, start, prefix):
    generator = np.random.default_rng(length)
    query, key, value, gradient = (
        generator.standard_normal((2, size, 3, 8), np.float32) for size in (length, 12, 12, length)
    )
    attention = attention_function(kind)
    context, pull_back = jax.vjp(
        lambda q, k, v: attention(q, k, v, jnp.array(prefix), start), query, key, value
    )
    expected = naive_attention(query, key, value, gradient, np.array(prefix), start)
    for result, exact in zip((context, *pull_back(gradient)), expected, strict=True):
        allowed = FLOAT32_TOLERANCE * max(1, np.abs(exact).max())
        np.testing.assert_allclose(result, exact, rtol=0, atol=allowed)


@functools.cache
def attention_in_blocks(length: int, rate: float):
    """Query, key, value and gradient, the factors of dropout, and a function of the prefixes."""
    generator = np.random.default_rng(length)
    query, key, value, gradient = generator.standard_normal((4, 2, length, 3, 8), np.float32)
    dropout, factors = None, 1.0
    if rate:
        dropout = Dropout(jax.random.key(1)).probabilities(rate, 2, 3, length)
        factors = np.asarray(dropout(jnp.ones((2, 3, length, length))))

    @jax.jit
    def with_gradients(prefix):
        attend = functools.partial(
            attention_function("by_head"), prefix_length=prefix, dropout=dropout
        )
        context, pull_back = jax.vjp(attend, query, key, value)
        return context, *pull_back(gradient)

    return (query, key, value, gradient), factors, with_gradients


# Block sizes of queries: 200 has blocks of 128 and 72; 512 four of 128; 600 four of 150.
@pytest.mark.parametrize(
    ("length", "prefix"),
    [
        (200, [0, 1]),
        (200, [128, 129]),
        (200, [200, 64]),
        (512, [0, 200]),
        (512, [384, 512]),
        (512, [256, 385]),
        (600, [149, 451]),
    ],
)
@pytest.mark.parametrize("rate", [0.0, 0.3])
def test_blocks_of_queries_see_what_the_mask_shows(length, prefix, rate):
    inputs, factors, with_gradients = attention_in_blocks(length, rate)
    results = with_gradients(jnp.array(prefix))
    expected = naive_attention(*inputs, np.array(prefix), 0, factors)
    for result, exact in zip(results, expected, strict=True):
        allowed = FLOAT32_TOLERANCE * max(1, np.abs(exact).max())
        np.testing.assert_allclose(result, exact, rtol=0, atol=allowed)


def test_a_block_reads_no_key_after_it_that_no_query_of_it_sees():
    query, key, value = random_heads(6, batch=1, length=512)
    hidden = jnp.arange(512)[:, None, None] >= 256
    nan = jnp.where(hidden, jnp.nan, value)
    prefix = jnp.array([130])
    context, with_nan = (attention_function("by_head")(query, key, v, prefix) for v in (value, nan))
    np.testing.assert_array_equal(with_nan[:, :256], context[:, :256])


def test_by_head_keeps_the_dtype_of_its_inputs():
    query, key, value = (array.astype(jnp.bfloat16) for array in random_heads(4))
    by_head, xla = (
        attention_function(kind)(query, key, value, jnp.array([2])) for kind in ("by_head", "xla")
    )
    assert by_head.dtype == xla.dtype == jnp.bfloat16
    np.testing.assert_allclose(
        by_head.astype(jnp.float32), xla.astype(jnp.float32), rtol=2e-2, atol=2e-2
    )


@given(prefix=st.lists(st.integers(0, 12), min_size=2, max_size=2))
@settings(max_examples=10)
def test_two_masks_without_a_bias_make_the_prefix_mask(prefix):
    generator = np.random.default_rng(0)
    query, key, value, gradient = generator.standard_normal((4, 2, 12, 3, 8), np.float32)
    attention = functools.partial(gpu_attention, implementation="xla")
    context, pull_back = jax.vjp(
        lambda q, k, v: attention(q, k, v, jnp.array(prefix)), query, key, value
    )
    expected = naive_attention(query, key, value, gradient, np.array(prefix), 0)
    for result, exact in zip((context, *pull_back(gradient)), expected, strict=True):
        allowed = FLOAT32_TOLERANCE * max(1, np.abs(exact).max())
        np.testing.assert_allclose(result, exact, rtol=0, atol=allowed)


@pytest.mark.parametrize(
    ("dtype", "head_size", "queries", "message"),
    [
        ("float32", 64, 16, "float32 inputs, but can do bfloat16 and float16 only"),
        ("bfloat16", 60, 16, "heads of 60, but needs a multiple of 8 up to 128"),
        ("bfloat16", 64, 8, "a part of the queries"),
    ],
)
def test_cudnn_refuses_what_it_cannot_do(dtype, head_size, queries, message):
    query, key = (jnp.zeros((1, size, 2, head_size), dtype) for size in (queries, 16))
    with pytest.raises(UsageError, match=message):
        gpu_attention(query, key, key, jnp.array([3]))


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("splash", {}, "model.attention is 'splash'; expected one of xla, by_head"),
        ("flash", {"platform": "gpu"}, "runs on TPU only, but the devices are of platform 'gpu'"),
        ("cudnn", {}, "runs on GPU only, but the devices are of platform 'tpu'"),
        (
            "cudnn",
            {"platform": "gpu", "attention_dropout": 0.1},
            "attention_dropout is 0.1; the other kinds can",
        ),
        ("flash", {"sequence_length": 550}, "given 550 positions, but needs a multiple of 128"),
        ("flash", {"head_size": 256}, "heads of 256, but can do no more than 128"),
        ("cudnn", {"platform": "gpu", "head_size": 100}, "heads of 100"),
    ],
)
def test_impossible_choices_are_refused_in_a_sentence(name, changes, message):
    run = {"platform": "tpu", "attention_dropout": 0.0, "sequence_length": 512, "head_size": 64}
    with pytest.raises(UsageError, match=message):
        check_attention(name, **(run | changes))


def test_possible_choices_are_accepted():
    for name, platform in [("xla", "cpu"), ("by_head", "cpu"), ("flash", "tpu"), ("cudnn", "gpu")]:
        check_attention(
            name, platform=platform, attention_dropout=0.0, sequence_length=512, head_size=72
        )
    check_attention("xla", platform="tpu", attention_dropout=0.1, sequence_length=5, head_size=3)
