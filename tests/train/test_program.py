"""The compiled functions of a run follow its configuration."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from glm_jax.errors import UsageError
from glm_jax.model import GLMConfig
from glm_jax.parallel.mesh import MeshConfig, make_mesh
from glm_jax.train.config import ACCUMULATIONS, TrainConfig
from glm_jax.train.optimizer import OptimizerConfig
from glm_jax.train.program import make_program

MODEL = GLMConfig(
    vocab_size=32,
    num_layers=1,
    hidden_size=8,
    num_attention_heads=2,
    max_sequence_length=6,
    embedding_dropout=0.0,
    hidden_dropout=0.0,
    attention_dropout=0.0,
)


def uneven_batch() -> dict[str, jax.Array]:
    """Two micro-batches of one row each, with six targets and with one."""
    draw = np.random.default_rng(0)
    return {
        "tokens": jnp.array(draw.integers(0, 32, (2, 6)), jnp.int32),
        "targets": jnp.array(draw.integers(0, 32, (2, 6)), jnp.int32),
        "loss_mask": jnp.array([[1.0] * 6, [0.0] * 5 + [1.0]]),
        "position_ids": jnp.zeros((2, 2, 6), jnp.int32),
        "prefix_length": jnp.zeros(2, jnp.int32),
    }


def first_metrics(accumulation: str) -> dict[str, float]:
    mesh = make_mesh(MeshConfig())
    optimizer = OptimizerConfig(learning_rate=1e-3, decay_steps=10)
    program = make_program(
        MODEL, optimizer, mesh, seed=0, accumulation_steps=2, accumulation=accumulation
    )
    with jax.set_mesh(mesh):
        _, metrics = program.train_step(program.initialize(), uneven_batch(), program.settings)
    return {name: float(value) for name, value in metrics.items()}


def test_the_configured_accumulation_is_the_programs():
    global_mean, clipped_means = (first_metrics(kind)["loss"] for kind in ACCUMULATIONS)
    # With S and s the sums of the rows' losses: (S + s) / 7 and (S / 6 + s) / 2.
    assert abs(global_mean - clipped_means) > 1e-4


def test_an_unknown_accumulation_is_refused_by_name():
    with pytest.raises(UsageError, match=r"train\.accumulation is 'mean'; expected one of"):
        TrainConfig(run_folder="run", num_steps=1, accumulation="mean")
