"""A trained prefix under every kind of attention."""

from __future__ import annotations

import dataclasses
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from glm_jax.errors import UsageError
from glm_jax.model import ChatGLM, ChatGLMConfig
from glm_jax.model.attention import choose
from glm_jax.model.attention.flash import prefix_flash_attention
from glm_jax.model.initial import initial_params

LENGTH, BATCH = 128, 2
CONFIG = ChatGLMConfig(
    vocab_size=96,
    num_layers=2,
    hidden_size=128,
    num_attention_heads=2,
    max_sequence_length=LENGTH,
    num_prefix_tokens=128,
    prefix_dropout=0.0,
)


@pytest.fixture
def emulated(monkeypatch):
    """The kernels, run by Pallas's interpreter."""
    functions = choose._FUNCTIONS | {"flash": partial(prefix_flash_attention, interpret=True)}
    monkeypatch.setattr(choose, "_FUNCTIONS", functions)


def params_of(config: ChatGLMConfig):
    params = nn.unbox(initial_params(ChatGLM(config), jax.random.key(0)))
    attention = params["layers"]["attention"]
    # Of the size of trained ones: initial prefixes and contexts hardly change the logits.
    for name in ("prefix", "output"):
        attention[name] = jax.tree.map(lambda leaf: 50 * leaf, attention[name])
    return params


def results(config: ChatGLMConfig, params):
    """Logits, and the gradients of everything."""
    draw = np.random.default_rng(3)
    tokens = draw.integers(0, 96, (BATCH, LENGTH)).astype(np.int32)
    positions = draw.integers(0, LENGTH, (BATCH, 2, LENGTH)).astype(np.int32)
    weights = draw.normal(size=(BATCH, LENGTH, 96)).astype(np.float32)
    prefix_length = np.array([40, 0], np.int32)

    def loss(params):
        logits = ChatGLM(config).apply({"params": params}, tokens, positions, prefix_length)
        assert isinstance(logits, jax.Array)
        return jnp.sum(logits * weights), logits

    gradients, logits = jax.jit(jax.grad(loss, has_aux=True))(params)
    return logits, gradients


@pytest.mark.usefixtures("emulated")
@pytest.mark.parametrize("kind", ["flash", "by_head"])
def test_every_kind_gives_the_same_logits_and_gradients(kind):
    params = params_of(CONFIG)
    expected = results(CONFIG, params)
    found = results(dataclasses.replace(CONFIG, attention=kind), params)
    for one, exact in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one, exact, rtol=0, atol=2e-5 * max(1, np.abs(exact).max()))
    # The prefix is seen: without it the logits are others.
    plain = dataclasses.replace(CONFIG, num_prefix_tokens=0)
    without = {**params, "layers": {**params["layers"]}}
    attention = without["layers"]["attention"]
    without["layers"]["attention"] = {n: v for n, v in attention.items() if n != "prefix"}
    assert np.abs(results(plain, without)[0] - expected[0]).max() > 0.01


@pytest.mark.usefixtures("emulated")
def test_a_prefix_that_the_kernels_cannot_take_is_refused():
    config = dataclasses.replace(CONFIG, num_prefix_tokens=64, attention="flash")
    with pytest.raises(UsageError, match="192"):
        results(config, params_of(config))
