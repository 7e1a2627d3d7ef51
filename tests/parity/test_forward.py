"""The forward pass against numbers recorded from the original code."""

from __future__ import annotations

import functools
from pathlib import Path

import flax.linen as nn
import jax
import numpy as np
import pytest

TOLERANCE = 1e-4
MODELS = ("a_forward/block2d_scale1", "a_forward/block2d_scale8")
PREFIX_CASES = ("sep_vector", "sep_zero", "sep_full", "sep_scalar", "inc_prefix", "inc_full")


@pytest.fixture(scope="module", params=MODELS)
def recorded(shared: Path, load_recorded, request: pytest.FixtureRequest):
    model, params = load_recorded(request.param)
    return model, params, np.load(shared / "goldens" / request.param / "io.npz")


@functools.partial(jax.jit, static_argnums=0)
def forward(model, params, *inputs):
    hidden = model.apply({"params": params}, *inputs, method="hidden_states")
    return hidden, model.apply({"params": params}, *inputs)


@pytest.mark.parametrize("case", PREFIX_CASES)
def test_hidden_states_and_logits_equal_the_original(recorded, case):
    model, params, arrays = recorded
    tokens = arrays[f"{case}/tokens"]
    prefix_length = np.broadcast_to(arrays[f"{case}/attention_mask"], tokens.shape[:1])
    inputs = (tokens, arrays[f"{case}/position_ids"], prefix_length)
    hidden, logits = forward(model, params, *inputs)
    expected = arrays[f"{case}/hidden"]
    np.testing.assert_allclose(hidden, expected, atol=TOLERANCE, rtol=0)
    # Some cases record hidden states only; logits are their product with the word embedding.
    recorded_logits = f"{case}/logits"
    if recorded_logits in arrays:
        expected_logits = arrays[recorded_logits]
    else:
        expected_logits = expected @ params["word_embedding"].T
    np.testing.assert_allclose(logits, expected_logits, atol=TOLERANCE, rtol=0)


def test_the_original_has_exactly_our_parameters(recorded):
    model, params, arrays = recorded
    tokens = arrays["sep_vector/tokens"]
    inputs = (tokens, arrays["sep_vector/position_ids"], np.zeros(len(tokens), np.int32))
    ours = nn.unbox(jax.eval_shape(model.init, jax.random.key(0), *inputs)["params"])
    assert jax.tree.map(np.shape, params) == jax.tree.map(np.shape, ours)
