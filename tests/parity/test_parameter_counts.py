"""The published models have as many parameters as their dimensions imply."""

from __future__ import annotations

import ast
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

from glm_jax.model import GLM, GLMConfig
from glm_jax.train.optimizer import parameter_count

ROOT = Path(__file__).resolve().parents[2]
MODELS = sorted((ROOT / "configs" / "models").glob("*.gin"))

# The counts that the README's table shows.
COUNTS = {
    "demo": 1_350_656,
    "glm_base": 109_338_624,
    "glm_large": 334_688_256,
    "glm_large_chinese": 355_659_776,
    "glm_doc": 334_688_256,
    "glm_410m": 410_265_600,
    "glm_515m": 514_632_960,
    "glm_roberta": 354_873_344,
    "glm_2b": 1_920_122_880,
    "glm_10b": 9_880_682_496,
    "glm_10b_chinese": 9_879_633_920,
}


def read_model(path: Path) -> GLMConfig:
    """The dimensions that a file of configs/models binds."""
    lines = (line for line in path.read_text().splitlines() if line.startswith("model."))
    bound = (line.removeprefix("model.").split(" = ") for line in lines)
    return GLMConfig(**{name: ast.literal_eval(value) for name, value in bound})


def implied_count(config: GLMConfig) -> int:
    """V D + 2 (P + 1) D for the tables, N (12 D^2 + 13 D) for the layers, 2 D for the last norm."""
    width = config.hidden_size
    tables = (config.vocab_size + 2 * (config.max_sequence_length + 1)) * width
    attention = 4 * width**2 + 4 * width
    mlp = 8 * width**2 + 5 * width
    norms = 4 * width
    return tables + config.num_layers * (attention + mlp + norms) + 2 * width


def test_every_model_is_listed():
    assert {path.stem for path in MODELS} == set(COUNTS)


@pytest.mark.parametrize("path", MODELS, ids=lambda path: path.stem)
def test_shapes_add_up_to_the_implied_number_of_parameters(path):
    config = read_model(path)
    tokens, positions = jnp.zeros((1, 1), jnp.int32), jnp.zeros((1, 2, 1), jnp.int32)
    variables = jax.eval_shape(GLM(config).init, jax.random.key(0), tokens, positions, tokens[:, 0])
    params = nn.unbox(variables["params"])
    assert parameter_count(params) == implied_count(config) == COUNTS[path.stem]
