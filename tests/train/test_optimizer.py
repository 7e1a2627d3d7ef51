"""Schedules, decay groups and the update, against plain arithmetic."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from glm_jax.errors import UsageError
from glm_jax.train.optimizer import (
    OptimizerConfig,
    is_decayed,
    learning_rate_schedule,
    make_optimizer,
)

# Learning rates in float32 against float64 arithmetic: a few roundings.
RELATIVE = 1e-5


def config(**values) -> OptimizerConfig:
    return OptimizerConfig(**{"learning_rate": 1e-3, "decay_steps": 100, **values})


@pytest.mark.parametrize("decay", ["cosine", "linear"])
def test_schedule_rises_falls_and_stays_at_its_floor(decay):
    schedule = learning_rate_schedule(config(decay=decay, warmup_fraction=0.1, final_fraction=0.2))
    rates = np.array(jax.vmap(schedule)(jnp.arange(200)))
    assert rates[0] == 0.0
    assert np.all(np.diff(rates[:11]) > 0) and np.isclose(rates[10], 1e-3)
    assert np.all(np.diff(rates[10:100]) < 0)
    np.testing.assert_allclose(rates[100:], 0.2e-3, rtol=RELATIVE)


def test_an_unclamped_linear_decay_runs_on_past_its_end():
    schedule = learning_rate_schedule(
        config(decay="linear_unclamped", warmup_fraction=0.0, final_fraction=0.2)
    )
    rates = np.array(jax.vmap(schedule)(jnp.array([0, 50, 100, 125, 150])))
    # 0.8e-3 less every 100 steps: through the floor at 100 and through 0 at 125.
    np.testing.assert_allclose(rates, [1e-3, 0.6e-3, 0.2e-3, 0, -0.2e-3], rtol=0, atol=1e-9)


def test_a_restart_warms_up_again_to_the_rate_it_begins_with_and_falls_to_its_share():
    schedule = learning_rate_schedule(
        config(
            decay="linear",
            warmup_fraction=0.1,
            final_fraction=0.5,
            restart_step=55,
            restart_decay_steps=20,
        )
    )
    rates = np.array(jax.vmap(schedule)(jnp.arange(120)))
    np.testing.assert_allclose(rates[55], 0.75e-3, rtol=RELATIVE)
    np.testing.assert_allclose(rates[56:66], 0.75e-3 * np.arange(1, 11) / 10, rtol=RELATIVE)
    assert np.all(np.diff(rates[65:86]) < 0)
    np.testing.assert_allclose(rates[85:], 0.375e-3, rtol=RELATIVE)


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"decay": "exponential"}, "optimizer.decay"),
        ({"restart_step": -1}, "optimizer.restart_step"),
        ({"restart_step": 5}, "optimizer.restart_decay_steps"),
        ({"restart_decay_steps": 5}, "optimizer.restart_decay_steps"),
        ({"restart_step": 5, "restart_decay_steps": -5}, "optimizer.restart_decay_steps"),
    ],
)
def test_impossible_schedules_are_refused_by_name(values, named):
    with pytest.raises(UsageError, match=named):
        config(**values)


def test_without_warmup_the_first_step_has_the_peak():
    assert float(learning_rate_schedule(config(warmup_fraction=0.0))(0)) == pytest.approx(1e-3)


def test_only_matrices_and_embeddings_decay():
    params = {
        "word_embedding": jnp.ones(2),
        "layers": {
            "input_layernorm": {"scale": jnp.ones(2), "bias": jnp.ones(2)},
            "attention": {"dense": {"kernel": jnp.ones(2), "bias": jnp.ones(2)}},
        },
    }
    assert is_decayed(params) == {
        "word_embedding": True,
        "layers": {
            "input_layernorm": {"scale": False, "bias": False},
            "attention": {"dense": {"kernel": True, "bias": False}},
        },
    }


def test_update_is_adam_with_decoupled_decay_after_clipping():
    settings = config(clip_norm=0.5, warmup_fraction=0.0, decay="constant", weight_decay=0.1)
    optimizer = make_optimizer(settings)
    params: Any = {"kernel": jnp.array([1.0, -2.0]), "bias": jnp.array([3.0])}
    state = optimizer.init(params)
    expected = {name: np.array(value, np.float64) for name, value in params.items()}
    first = {name: np.zeros_like(value) for name, value in expected.items()}
    second = {name: np.zeros_like(value) for name, value in expected.items()}
    for step in range(1, 4):
        gradients = {"kernel": jnp.array([3.0, 4.0]) * step, "bias": jnp.array([0.1])}
        updates, state = optimizer.update(gradients, state, params)
        params = optax.apply_updates(params, updates)
        norm = np.sqrt(sum(np.sum(np.square(g)) for g in gradients.values()))
        for name, gradient in gradients.items():
            clipped = np.array(gradient, np.float64) * min(1.0, 0.5 / norm)
            first[name] = 0.9 * first[name] + 0.1 * clipped
            second[name] = 0.98 * second[name] + 0.02 * clipped**2
            mean = first[name] / (1 - 0.9**step)
            deviation = np.sqrt(second[name] / (1 - 0.98**step)) + 1e-6
            decay = 0.1 * expected[name] if name == "kernel" else 0.0
            expected[name] = expected[name] - 1e-3 * (mean / deviation + decay)
    for name in params:
        np.testing.assert_allclose(params[name], expected[name], rtol=1e-5)


def test_unknown_moments_are_refused_by_name():
    with pytest.raises(UsageError, match=r"optimizer\.moments is 'int8'; expected one of float32"):
        config(moments="int8")
