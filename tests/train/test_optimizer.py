"""Schedules, decay groups and the update, against recorded numbers and plain arithmetic."""

import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

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


def test_schedules_equal_the_recorded_ones(shared):
    recorded = json.loads((shared / "goldens/c_training/lr_schedule/lr.json").read_text())
    compared = 0
    for run in recorded["schedules"]:
        if run["decay_style"] not in ("cosine", "linear", "constant"):
            continue
        # `end_iter` and `warmup_iter` are what the original derives from its arguments.
        end = run["state_dict_after"]["end_iter"] + run["state_dict_after"]["warmup_iter"]
        schedule = learning_rate_schedule(
            config(
                learning_rate=run["lr"],
                decay=run["decay_style"],
                decay_steps=end,
                warmup_fraction=run["state_dict_after"]["warmup_iter"] / end,
                final_fraction=run["decay_ratio"],
            )
        )
        steps = np.arange(len(run["lr_at_step"]))
        if run["decay_style"] == "linear":
            steps = steps[steps <= end]  # the original runs on below its floor; we don't
        ours = jax.vmap(schedule)(jnp.asarray(steps))
        # 1e-5 of the peak: differences of nearly equal float32 numbers count against the peak.
        np.testing.assert_allclose(
            ours, np.array(run["lr_at_step"])[steps], rtol=RELATIVE, atol=RELATIVE * run["lr"]
        )
        compared += 1
    assert compared >= 10


@pytest.mark.parametrize("decay", ["cosine", "linear"])
def test_schedule_rises_falls_and_stays_at_its_floor(decay):
    schedule = learning_rate_schedule(config(decay=decay, warmup_fraction=0.1, final_fraction=0.2))
    rates = np.array(jax.vmap(schedule)(jnp.arange(200)))
    assert rates[0] == 0.0
    assert np.all(np.diff(rates[:11]) > 0) and np.isclose(rates[10], 1e-3)
    assert np.all(np.diff(rates[10:100]) < 0)
    np.testing.assert_allclose(rates[100:], 0.2e-3, rtol=RELATIVE)


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
