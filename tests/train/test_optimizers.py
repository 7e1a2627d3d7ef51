"""Every optimizer of the table: it learns, resumes exactly, is sharded, and checks its settings."""

from __future__ import annotations

from functools import cache
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from glm_jax.checkpoints.checkpoints import Checkpoints
from glm_jax.checkpoints.config import CheckpointConfig
from glm_jax.configure import read_configuration
from glm_jax.errors import UsageError
from glm_jax.model import GLM, GLMConfig
from glm_jax.model.initial import initial_params
from glm_jax.parallel.layout import abstract_with_shardings
from glm_jax.train.optimizer import OptimizerConfig, make_optimizer
from glm_jax.train.optimizers import OPTIMIZERS
from glm_jax.train.resume import check_same_run
from glm_jax.train.step import TrainState, initial_state
from tests.train.sharded import sharded_optimizers

# Adafactor's rate is relative to the size of each parameter; Lion's update is a sign.
LEARNING_RATES = {"adamw": 1e-2, "adafactor": 5e-2, "lion": 3e-3, "muon": 1e-2, "sgd": 0.3}
TINY = GLMConfig(
    vocab_size=32,
    num_layers=2,
    hidden_size=16,
    num_attention_heads=2,
    max_sequence_length=12,
    embedding_dropout=0.0,
    hidden_dropout=0.0,
    attention_dropout=0.0,
)


def config(name: str, **values) -> OptimizerConfig:
    fields = {"learning_rate": LEARNING_RATES[name], "decay_steps": 200, "decay": "constant"}
    return OptimizerConfig(**{"name": name, "warmup_fraction": 0.0, **fields, **values})


def tiny_update(optimizer: optax.GradientTransformation):
    """A first state, and an update of it on a text to learn by heart."""
    model = GLM(TINY)
    tokens = jax.random.randint(jax.random.key(0), (4, 12), 0, 32)
    positions = jnp.stack([jnp.broadcast_to(jnp.arange(12), (4, 12)), jnp.zeros((4, 12), int)], 1)
    arguments = (tokens, positions, jnp.full(4, 4))

    def loss_of(params):
        logits: Any = model.apply({"params": params}, *arguments)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits[:, 4:-1], tokens[:, 5:])
        return jnp.mean(losses)

    def update(state: TrainState, _=None):
        loss, gradients = jax.value_and_grad(loss_of)(state.params)
        updates, moved = optimizer.update(gradients, state.optimizer_state, state.params)
        params = optax.apply_updates(state.params, updates)
        return state.replace(step=state.step + 1, params=params, optimizer_state=moved), loss

    return initial_state(initial_tiny_params(), optimizer), update


@cache
def initial_tiny_params() -> Any:
    return nn.unbox(jax.jit(lambda key: initial_params(GLM(TINY), key))(jax.random.key(1)))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_it_learns_and_resumes_bit_for_bit(name, tmp_path):
    state, update = tiny_update(make_optimizer(config(name)))
    run = jax.jit(lambda state: jax.lax.scan(update, state, length=40))
    middle, first_losses = run(state)
    with Checkpoints(tmp_path, CheckpointConfig()) as checkpoints:
        checkpoints.save(40, middle, {})
        checkpoints.wait()
        shardings = jax.tree.map(lambda leaf: leaf.sharding, middle)
        restored = checkpoints.restore(40, abstract_with_shardings(middle, shardings))
    for saved, found in zip(*map(jax.tree.leaves, (middle, restored)), strict=True):
        np.testing.assert_array_equal(saved, found)
    end, losses = run(middle)
    resumed, losses_again = run(restored)
    np.testing.assert_array_equal(losses, losses_again)
    for expected, found in zip(*map(jax.tree.leaves, (end, resumed)), strict=True):
        np.testing.assert_array_equal(expected, found)
    assert losses[-1] < 0.5 * first_losses[0]


def test_every_device_keeps_its_shard_of_the_moments_and_computes_the_same(run_program):
    results = sharded_optimizers(run_program, {name: {"name": name} for name in OPTIMIZERS})
    kernel, bias = [2, 32, 256], [2, 256]  # of [2, 128, 512], fsdp 4 and tensor 2
    muon_state = "1/inner_states/muon/inner_state/0/inner_states/muon/inner_state/0"
    expected = {
        "adamw": {
            "1/mu/kernel": kernel,
            "1/mu/bias": bias,
            "1/nu/kernel": kernel,
            "1/nu/bias": bias,
        },
        "adafactor": {"1/0/0/v/bias": bias},
        "lion": {"1/mu/kernel": kernel, "1/mu/bias": bias},
        "muon": {
            f"{muon_state}/mu/kernel": kernel,
            "1/inner_states/adam/inner_state/mu/bias": bias,
            "1/inner_states/adam/inner_state/nu/bias": bias,
        },
        "sgd": {"1/trace/kernel": kernel, "1/trace/bias": bias},
    }
    for name, result in results.items():
        assert result["difference"] <= 1e-6, name
        assert expected[name].items() <= result["parts"].items(), name


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_decay_is_shared_and_spares_layernorms_and_biases(name):
    optimizer = make_optimizer(config(name, learning_rate=0.5, weight_decay=0.1))
    dense = {"kernel": jnp.ones((2, 4, 4)), "bias": jnp.ones((2, 4))}
    params = {"dense": dense, "layernorm": {"scale": jnp.ones((2, 4))}, "table": jnp.ones((3, 4))}
    updates, _ = optimizer.update(
        jax.tree.map(jnp.zeros_like, params), optimizer.init(params), params
    )
    new: Any = optax.apply_updates(params, updates)
    np.testing.assert_allclose(new["dense"]["kernel"], 0.95, rtol=1e-6)
    np.testing.assert_allclose(new["table"], 0.95, rtol=1e-6)
    np.testing.assert_array_equal(new["dense"]["bias"], 1.0)
    np.testing.assert_array_equal(new["layernorm"]["scale"], 1.0)


def test_clipping_is_shared_and_0_turns_it_off():
    params, gradients = {"kernel": jnp.zeros(2)}, {"kernel": jnp.array([30.0, 40.0])}

    def update(clip_norm: float) -> Any:
        optimizer = make_optimizer(
            config("sgd", learning_rate=1.0, clip_norm=clip_norm, settings={"momentum": 0.0})
        )
        return optimizer.update(gradients, optimizer.init(params), params)[0]

    np.testing.assert_allclose(update(0.0)["kernel"], [-30, -40])
    np.testing.assert_allclose(update(5.0)["kernel"], [-3, -4], rtol=1e-6)


def test_a_setting_has_its_effect():
    params, gradients = {"kernel": jnp.zeros(2)}, {"kernel": jnp.ones(2)}

    def second_update(**settings) -> float:
        optimizer = make_optimizer(config("sgd", clip_norm=0.0, settings=settings))
        state = optimizer.init(params)
        _, state = optimizer.update(gradients, state, params)
        updates: Any = optimizer.update(gradients, state, params)[0]
        return float(updates["kernel"][0]) / -LEARNING_RATES["sgd"]

    assert second_update(momentum=0.5) == pytest.approx(1.5)
    assert second_update(momentum=0.5, nesterov=True) == pytest.approx(1.75)


def test_settings_come_as_a_gin_mapping(tiny_run):
    bindings = ["optimizer.name=sgd", "optimizer.settings={'momentum': 0.5, 'nesterov': True}"]
    read = read_configuration([tiny_run], bindings).optimizer
    assert (read.name, read.settings) == ("sgd", {"momentum": 0.5, "nesterov": True})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"name": "adam"}, "optimizer.name is 'adam'; expected one of adamw, adafactor, lion,"),
        (
            {"name": "sgd", "settings": {"momentun": 0.9}},
            "optimizer.settings has 'momentun', but sgd has only momentum, nesterov",
        ),
        ({"settings": {"beta1": 0.9}}, "has 'beta1', but adamw has no settings of its own"),
        (
            {"name": "sgd", "settings": {"nesterov": 1}},
            r"settings\['nesterov'\] is 1; expected True or False",
        ),
        (
            {"name": "lion", "settings": {"beta1": "high"}},
            r"settings\['beta1'\] is 'high'; expected a non-negative float",
        ),
        (
            {"name": "lion", "settings": {"beta1": 1.0}},
            r"settings\['beta1'\] is 1.0; expected a number in \[0, 1\)",
        ),
        (
            {"name": "muon", "settings": {"newton_schulz_steps": 0}},
            r"settings\['newton_schulz_steps'\] is 0; expected an integer of at least 1",
        ),
        ({"name": "lion", "moments": "bfloat16"}, "optimizer.moments is 'bfloat16', but only"),
        ({"clip_norm": -1.0}, "optimizer.clip_norm is -1.0; expected 0 or a positive number"),
    ],
)
def test_settings_that_do_not_exist_are_refused_in_one_sentence(values, message):
    with pytest.raises(UsageError, match=message) as error:
        OptimizerConfig(learning_rate=1e-3, decay_steps=10, **values)
    assert "\n" not in str(error.value)


def test_a_run_resumes_with_its_own_optimizer_only():
    optimizer = {"learning_rate": 1e-3}  # as recorded before there were others than adamw
    record = {
        "step": 3,
        "tokenizer_fingerprint": "f",
        "configuration": {"model": vars(TINY), "optimizer": optimizer},
    }
    check_same_run(record, TINY, config("adamw"), "f")
    with pytest.raises(UsageError, match=r"has optimizer.name = adamw, but .* says lion"):
        check_same_run(record, TINY, config("lion"), "f")
