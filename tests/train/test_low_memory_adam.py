"""Moments in less memory: sound rounding, the state's size and layout, and learning as before."""

from __future__ import annotations

from functools import cache
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glm_jax.model import GLM, GLMConfig
from glm_jax.train.low_memory_adam import (
    MOMENTS,
    round_at_random,
    scale_by_bfloat16_adam,
    scale_by_factored_adam,
)
from glm_jax.train.optimizer import OptimizerConfig, make_optimizer
from tests.train.sharded import sharded_optimizers

LEARNING_RATE = 1e-2
# Final losses of the same 200 steps, as a fraction of what was learnt: with half the precision
# nearly the same, with factored statistics another path as good.
MARGINS = {"bfloat16": 0.001, "factored": 0.01}
BYTES_PER_PARAMETER = {"float32": 8.0, "bfloat16": 4.0, "factored": 2.0}
# float32 sums in another order may round one momentum to the next bfloat16.
ONE_BFLOAT16_ROUNDING = LEARNING_RATE * 2**-8

TINY = GLMConfig(
    vocab_size=128,
    num_layers=1,
    hidden_size=128,
    num_attention_heads=2,
    max_sequence_length=16,
    embedding_dropout=0.0,
    hidden_dropout=0.0,
    attention_dropout=0.0,
)


@given(
    st.floats(
        width=32, allow_nan=False, allow_infinity=False, min_value=-(2.0**120), max_value=2.0**120
    ),
    st.integers(0, 2**32 - 1),
)
def test_rounding_gives_a_neighbour_and_leaves_bfloat16_numbers_alone(value, seed):
    key = jax.random.key(seed)
    rounded = round_at_random(jnp.full(8, value, jnp.float32), key)
    below = np.uint32(np.float32(value).view(np.uint32) & 0xFFFF0000)
    neighbours = np.array([below, below + np.uint32(0x10000)], np.uint32).view(np.float32)
    assert np.isin(np.asarray(rounded, np.float32), neighbours).all()
    exact = jnp.full(8, neighbours[0])
    np.testing.assert_array_equal(np.asarray(round_at_random(exact, key), np.float32), exact)


def test_rounding_is_right_on_average():
    value, count = 1.0 + 0.3 * 2**-7, 100_000
    rounded = round_at_random(jnp.full(count, value, jnp.float32), jax.random.key(0))
    risen = float(jnp.mean(rounded.astype(jnp.float32) > 1.0))
    # Five standard deviations of a share of 0.3 in so many draws.
    assert risen == pytest.approx(0.3, abs=5 * (0.3 * 0.7 / count) ** 0.5)


def test_a_second_moment_in_bfloat16_follows_gradients_that_shrink():
    """With beta2 = 0.999 every change is below half a spacing: to nearest, it would stand still."""
    exact, stored = (
        second_moment_after_shrinking(scale(0.9, 0.999, 1e-8))
        for scale in (optax.scale_by_adam, scale_by_bfloat16_adam)
    )
    assert float(jnp.mean(stored)) == pytest.approx(float(jnp.mean(exact)), rel=0.02)


def second_moment_after_shrinking(optimizer: optax.GradientTransformation) -> jax.Array:
    """Of 4,096 numbers whose gradients fall to a tenth after 1,000 of 3,000 steps."""
    zeros = jnp.zeros(4096)

    def update(state, step):
        gradients = jax.random.normal(jax.random.fold_in(jax.random.key(0), step), zeros.shape)
        return optimizer.update(gradients * jnp.where(step < 1000, 1.0, 0.1), state)[1], None

    state, _ = jax.lax.scan(update, optimizer.init(zeros), jnp.arange(3000))
    return state.nu.astype(jnp.float32)


def test_factored_moments_of_a_product_are_adams():
    """Squares that are an outer product lose nothing by being factored."""
    rows, columns = (jnp.linspace(0.5, 2.0, size) for size in (128, 256))
    signs = jax.random.rademacher(jax.random.key(0), (128, 256), jnp.float32)
    gradients = {"kernel": signs * rows[:, None] * columns}
    params = jax.tree.map(jnp.zeros_like, gradients)
    adam, factored = (
        first_update(scale(0.9, 0.98, 1e-8), gradients, params)["kernel"]
        for scale in (optax.scale_by_adam, scale_by_factored_adam)
    )
    np.testing.assert_allclose(factored, adam, rtol=2**-8)


def first_update(optimizer: optax.GradientTransformation, gradients: Any, params: Any) -> Any:
    return optimizer.update(gradients, optimizer.init(params), params)[0]


@pytest.mark.slow
def test_every_device_keeps_its_part_of_the_moments_and_computes_the_same(run_program):
    results = sharded_optimizers(
        run_program, {moments: {"moments": moments} for moments in MOMENTS}
    )
    part = {"kernel": [2, 32, 256], "bias": [2, 256]}  # of [2, 128, 512], fsdp 4 and tensor 2
    whole = {
        "float32": ("1/mu", "1/nu"),
        "bfloat16": ("1/mu", "1/nu"),
        "factored": ("1/2/ema",),
    }
    for moments, result in results.items():
        assert result["difference"] <= ONE_BFLOAT16_ROUNDING
        for moment in whole[moments]:
            for name, shape in part.items():
                assert result["parts"][f"{moment}/{name}"] == shape
    assert results["factored"]["parts"]["1/0/v/bias"] == part["bias"]


@cache
def trained(moments: str) -> tuple[float, float, float]:
    """First and last loss of 200 steps on a text to learn by heart, and bytes kept a parameter."""
    model = GLM(TINY)
    optimizer = make_optimizer(
        OptimizerConfig(learning_rate=1e-3, decay_steps=200, moments=moments)
    )
    tokens = jax.random.randint(jax.random.key(0), (8, 16), 0, 128)
    positions = jnp.stack([jnp.broadcast_to(jnp.arange(16), (8, 16)), jnp.zeros((8, 16), int)], 1)
    arguments = (tokens, positions, jnp.full(8, 4))

    def loss_of(params):
        logits: Any = model.apply({"params": params}, *arguments)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits[:, 4:-1], tokens[:, 5:])
        return jnp.mean(losses)

    def update(carried, _):
        params, state = carried
        loss, gradients = jax.value_and_grad(loss_of)(params)
        updates, state = optimizer.update(gradients, state, params)
        return (optax.apply_updates(params, updates), state), loss

    params = nn.unbox(model.init(jax.random.key(1), *arguments))["params"]
    state = optimizer.init(params)
    kept = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
    count = sum(leaf.size for leaf in jax.tree.leaves(params))
    _, losses = jax.jit(lambda carried: jax.lax.scan(update, carried, length=200))((params, state))
    return float(losses[0]), float(losses[-1]), kept / count


@pytest.mark.slow
@pytest.mark.parametrize("moments", MARGINS)
def test_a_small_glm_learns_as_well_as_with_float32_moments(moments):
    first, expected, _ = trained("float32")
    _, last, _ = trained(moments)
    assert expected < 0.1 * first
    assert last < expected + MARGINS[moments] * (first - expected)


@pytest.mark.slow
@pytest.mark.parametrize("moments", MOMENTS)
def test_the_state_has_the_stated_size(moments):
    _, _, bytes_per_parameter = trained(moments)
    assert bytes_per_parameter == pytest.approx(BYTES_PER_PARAMETER[moments], abs=0.2)
