"""Dropout: its rate, its scale, its gradient, and that what is dropped here says nothing of there.

The bounds are in standard deviations of what independent draws give; the keys are fixed.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from glm_jax.model import GLM
from glm_jax.model.dropout import Dropout, drop
from glm_jax.model.random_streams import Streams
from tests.model.test_glm import CONFIG, initial_params, some_inputs

RATE = 0.1
SHAPE = (32, 96, 512)
# 4.5 deviations: one of 150,000 independent tests exceeds them.
MAX_DEVIATIONS = 4.5


def dropped(dropout: Dropout, number: int = 0, rate: float = RATE, shape=SHAPE) -> np.ndarray:
    """1.0 where a value is dropped."""
    values = dropout.hidden(rate, jnp.ones(shape), number)
    return np.asarray(values == 0, np.float64)


def correlation(first: Any, second: Any, rate: float = RATE) -> float:
    """Of two masks, in standard deviations."""
    product = np.mean((first - rate) * (second - rate)) / (rate * (1 - rate))
    return float(product * np.sqrt(first.size))


@pytest.fixture(scope="module")
def mask() -> np.ndarray:
    return dropped(Dropout(jax.random.key(0)))


@pytest.mark.parametrize("rate", [0.01, 0.1, 0.5, 0.9])
def test_the_rate_and_the_scale_of_what_is_kept(rate):
    values = np.asarray(Dropout(jax.random.key(7)).hidden(rate, jnp.ones(SHAPE), 0))
    share = np.mean(values == 0)
    assert abs(share - rate) < MAX_DEVIATIONS * np.sqrt(rate * (1 - rate) / values.size)
    np.testing.assert_allclose(values[values != 0], 1 / (1 - rate), rtol=1e-6)


def test_what_is_kept_is_scaled_in_float32_and_keeps_its_dtype():
    values = jnp.linspace(0.5, 1.0, 4096).astype(jnp.bfloat16).reshape(1, 1, -1)
    result = Dropout(jax.random.key(0)).hidden(RATE, values, 0)
    assert result.dtype == jnp.bfloat16
    expected = (values.astype(jnp.float32) / (1 - RATE)).astype(jnp.bfloat16)
    kept = np.asarray(result != 0)
    assert 0.85 < kept.mean() < 0.95
    np.testing.assert_array_equal(np.asarray(result)[kept], np.asarray(expected)[kept])


@pytest.mark.parametrize("axis", [0, 1, 2], ids=["examples", "positions", "columns"])
def test_counts_along_every_axis_spread_as_independent_draws_do(mask, axis):
    counts = mask.sum(axis=axis)
    variance = mask.shape[axis] * RATE * (1 - RATE)
    spread = np.mean((counts - mask.shape[axis] * RATE) ** 2) / variance
    # The deviation of a mean of squares of nearly normal numbers.
    assert abs(spread - 1) < MAX_DEVIATIONS * np.sqrt(2.2 / counts.size)


@pytest.mark.parametrize("axis", [0, 1, 2], ids=["examples", "positions", "columns"])
@pytest.mark.parametrize("distance", [1, 2, 3, 4, 8, 16])
def test_neighbours_are_independent(mask, axis, distance):
    ahead = np.take(mask, range(distance, mask.shape[axis]), axis)
    behind = np.take(mask, range(mask.shape[axis] - distance), axis)
    assert abs(correlation(ahead, behind)) < MAX_DEVIATIONS


@pytest.mark.parametrize(
    "other",
    [
        Dropout(jax.random.key(1)),
        Dropout(jax.random.fold_in(jax.random.key(0), 1)),
        Dropout(jax.random.key(0)).of_layer(jnp.asarray(0)),
        Dropout(jax.random.key(0)).of_layer(jnp.asarray(1)),
        Dropout(jax.random.key(0), first_example=32),
        Dropout(jax.random.key(0), first_position=96),
    ],
    ids=["seeds", "steps", "a layer", "another layer", "examples", "positions"],
)
def test_other_keys_layers_and_positions_drop_independently(mask, other):
    assert abs(correlation(mask, dropped(other))) < MAX_DEVIATIONS


def test_uses_and_layers_drop_independently(mask):
    dropout = Dropout(jax.random.key(0))
    assert abs(correlation(mask, dropped(dropout, number=1))) < MAX_DEVIATIONS
    first, second = (dropped(dropout.of_layer(jnp.asarray(layer))) for layer in (0, 1))
    assert abs(correlation(first, second)) < MAX_DEVIATIONS


@pytest.mark.parametrize("second", np.random.default_rng(0).integers(1, 2**32, 8).tolist())
def test_streams_a_few_columns_apart_are_not_shifted_copies(second):
    """Streams whose first words differ by one column's step, as some pairs among billions do."""
    columns, step = jnp.arange(2**16), jnp.uint32(0x9E3779B1)
    stream = Streams(jnp.uint32(5), jnp.uint32(11))
    shifted = Streams(stream.first + step, stream.second ^ jnp.uint32(second))
    ours = np.asarray(~stream.keep(0.5, columns + 1), np.float64)
    theirs = np.asarray(~shifted.keep(0.5, columns), np.float64)
    assert abs(correlation(ours, theirs, 0.5)) < MAX_DEVIATIONS


def test_a_shard_drops_what_the_full_arrays_drop(mask):
    shard = Dropout(jax.random.key(0), first_example=8, first_position=32)
    values = shard.hidden(RATE, jnp.ones((8, 64, 128)), 0, first_column=256)
    np.testing.assert_array_equal(np.asarray(values == 0), mask[8:16, 32:, 256:384])


def test_probabilities_of_heads_examples_and_queries_are_independent():
    def dropped_of(dropout: Dropout) -> np.ndarray:
        ones = jnp.ones((8, 12, 64, 64))
        return np.asarray(dropout.probabilities(RATE, 8, 12, 64)(ones) == 0, np.float64)

    dropout = Dropout(jax.random.key(3))
    mask = dropped_of(dropout)
    assert abs(mask.mean() - RATE) < MAX_DEVIATIONS * np.sqrt(RATE * (1 - RATE) / mask.size)
    for axis in range(4):
        ahead = np.take(mask, range(1, mask.shape[axis]), axis)
        behind = np.take(mask, range(mask.shape[axis] - 1), axis)
        assert abs(correlation(ahead, behind)) < MAX_DEVIATIONS
    part = dataclasses.replace(dropout, first_example=2, first_head=4).probabilities(RATE, 6, 8, 64)
    np.testing.assert_array_equal(part(jnp.ones((6, 8, 64, 64))) == 0, mask[2:, 4:] == 1)


def test_the_gradient_is_dropped_and_scaled_alike():
    values = jax.random.normal(jax.random.key(0), (4, 8, 256))
    streams = Streams.of_key(jax.random.key(1)).at(jnp.arange(4)[:, None]).at(jnp.arange(8))
    streams = streams.expand(-1)
    result, pull_back = jax.vjp(lambda array: drop(RATE, array, streams), values)
    (gradient,) = pull_back(jnp.ones_like(values))
    expected = np.where(np.asarray(result) == 0, 0.0, 1 / (1 - RATE))
    np.testing.assert_allclose(gradient, expected, rtol=1e-6)


def test_every_layer_of_the_network_drops_something_else():
    """Layers with equal parameters and one key would add the same to the stream."""
    model = GLM(dataclasses.replace(CONFIG, hidden_dropout=0.5, embedding_dropout=0.0))
    params = initial_params()
    # Blocks that add the bias of their last product, and nothing else.
    zeros = jax.tree.map(jnp.zeros_like, params["layers"])
    zeros["mlp"]["down"]["bias"] = jnp.ones_like(zeros["mlp"]["down"]["bias"])
    rngs = {"dropout": jax.random.key(0)}
    kept: Any
    _, kept = model.apply(
        {"params": params | {"layers": zeros}},
        *some_inputs(),
        deterministic=False,
        rngs=rngs,
        mutable="intermediates",
    )
    embedding, (outputs,) = (
        kept["intermediates"]["embedding"][0],
        kept["intermediates"]["layers"]["output"],
    )
    stream = np.stack([embedding, *outputs])
    first, second = np.asarray(np.abs(np.diff(stream, axis=0)) < 0.1, np.float64)
    for mask in (first, second):
        assert abs(mask.mean() - 0.5) < MAX_DEVIATIONS * 0.5 / np.sqrt(mask.size)
    assert abs(correlation(first, second, 0.5)) < MAX_DEVIATIONS
