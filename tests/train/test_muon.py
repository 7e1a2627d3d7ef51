"""Muon: its update equals a plain computation, for every matrix of every layer by itself."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from glm_jax.train.optimizer import OptimizerConfig, make_optimizer
from glm_jax.train.optimizers import AdamSettings, muon

# Of the quintic iteration. Source: Jordan (2024).
COEFFICIENTS = (3.4445, -4.7750, 2.0315)


def orthogonalized(matrix: np.ndarray, steps: int) -> np.ndarray:
    """Newton-Schulz steps in float64, from the matrix divided by its Frobenius norm."""
    a, b, c = COEFFICIENTS
    matrix = matrix / np.linalg.norm(matrix)
    for _ in range(steps):
        product = matrix @ matrix.T
        matrix = a * matrix + (b * product + c * product @ product) @ matrix
    return matrix


def plain_directions(
    gradients: list[np.ndarray], momentum: float, nesterov: bool, steps: int, rms: float
) -> list[np.ndarray]:
    """What is added to a matrix at each step, before the learning rate: momentum without bias."""
    directions, mean = [], np.zeros_like(gradients[0])
    for number, gradient in enumerate(gradients, start=1):
        mean = momentum * mean + (1 - momentum) * gradient
        used = mean / (1 - momentum**number)
        if nesterov:
            ahead = momentum * mean / (1 - momentum ** (number + 1))
            used = ahead + (1 - momentum) * gradient / (1 - momentum**number)
        scale = rms * max(gradient.shape) ** 0.5
        directions.append(-scale * orthogonalized(used, steps))
    return directions


@pytest.mark.parametrize("shape", [(6, 10), (10, 6), (8, 8)])
@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, (0.95, True, 5, 0.2)),
        (
            {"momentum": 0.8, "nesterov": False, "newton_schulz_steps": 3, "update_rms": 0.5},
            (0.8, False, 3, 0.5),
        ),
    ],
)
def test_updates_are_those_of_a_plain_computation(shape, settings, expected):
    draw = np.random.default_rng(1)
    gradients = [draw.normal(size=shape) for _ in range(3)]
    matrix = draw.normal(size=shape)
    config = OptimizerConfig(
        name="muon",
        settings=settings,
        learning_rate=0.1,
        decay_steps=10,
        decay="constant",
        warmup_fraction=0.0,
        weight_decay=0.3,
        clip_norm=0.0,
    )
    optimizer = make_optimizer(config)
    params: Any = {"kernel": jnp.array(matrix, jnp.float32)}
    state = optimizer.init(params)
    for gradient, direction in zip(gradients, plain_directions(gradients, *expected), strict=True):
        updates, state = optimizer.update({"kernel": jnp.array(gradient)}, state, params)
        params = optax.apply_updates(params, updates)
        matrix = matrix + 0.1 * (direction - 0.3 * matrix)
        np.testing.assert_allclose(params["kernel"], matrix, rtol=1e-4, atol=1e-5)


def test_muon_takes_every_matrix_of_every_layer_by_itself_and_adam_for_the_rest():
    draw = np.random.default_rng(0)
    params = {
        "table": jnp.array(draw.normal(size=(6, 4))),
        "layers": {
            "fused": {"kernel": jnp.array(draw.normal(size=(2, 4, 3, 4)))},
            "wide": {"kernel": jnp.array(draw.normal(size=(2, 4, 16)))},
        },
    }
    adam = AdamSettings(beta1=0.9, beta2=0.98, epsilon=1e-6)
    optimizer = muon(adam)
    updates, _ = optimizer.update(params, optimizer.init(params), params)

    def alone(matrix):
        single = {"kernel": matrix}
        updates: Any = optimizer.update(single, optimizer.init(single), single)[0]
        return updates["kernel"]

    layers: Any = params["layers"]
    found: Any = updates
    for layer in range(2):
        for part in range(3):
            matrix = alone(layers["fused"]["kernel"][layer, :, part])
            ours = found["layers"]["fused"]["kernel"][layer, :, part]
            np.testing.assert_allclose(ours, matrix, rtol=1e-4, atol=1e-6)
            # All singular values are near one another.
            values = np.linalg.svd(ours, compute_uv=False)
            assert values.max() / values.min() < 3
        wide = alone(layers["wide"]["kernel"][layer])
        np.testing.assert_allclose(
            found["layers"]["wide"]["kernel"][layer], wide, rtol=1e-4, atol=1e-6
        )
    plain = optax.scale_by_adam(adam.beta1, adam.beta2, adam.epsilon)
    table = {"table": params["table"]}
    expected: Any = plain.update(table, plain.init(table))[0]
    np.testing.assert_array_equal(found["table"], expected["table"])
