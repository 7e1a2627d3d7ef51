"""The network: what sees what, numerics, dropout, initialisation, published sizes."""

from __future__ import annotations

import ast
import dataclasses
import functools
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from glm_jax.model import GLM, GLMConfig
from glm_jax.model.layers import layer_norm

CONFIG = GLMConfig(
    vocab_size=96, num_layers=2, hidden_size=32, num_attention_heads=4, max_sequence_length=24
)
BATCH, LENGTH, PREFIX = 2, 16, 9
MODEL_FILES = Path(__file__).parents[2] / "configs" / "models"


def some_inputs():
    draw = np.random.default_rng(0)
    tokens = draw.integers(0, CONFIG.vocab_size, (BATCH, LENGTH))
    position_ids = draw.integers(0, CONFIG.max_sequence_length + 1, (BATCH, 2, LENGTH))
    return tokens, position_ids, np.full(BATCH, PREFIX)


def initial_params(config: GLMConfig = CONFIG) -> Any:
    return nn.unbox(jax.jit(GLM(config).init)(jax.random.key(0), *some_inputs()))["params"]


@functools.partial(jax.jit, static_argnums=(0, 2), static_argnames="method")
def forward(model, params, deterministic, *inputs, rngs=None, method="__call__"):
    variables = {"params": params}
    return model.apply(variables, *inputs, deterministic=deterministic, rngs=rngs, method=method)


@pytest.fixture(scope="module")
def params():
    # Larger than the real initial values, so that attention is far from uniform.
    return jax.tree.map(lambda array: 5.0 * array, initial_params())


@pytest.mark.parametrize("changed", range(LENGTH))
def test_a_token_changes_exactly_what_sees_it(params, changed):
    tokens, position_ids, prefix_length = some_inputs()
    other = tokens.copy()
    other[:, changed] = (other[:, changed] + 1) % CONFIG.vocab_size
    hidden = [
        np.asarray(
            forward(
                GLM(CONFIG), params, True, t, position_ids, prefix_length, method="hidden_states"
            )
        )
        for t in (tokens, other)
    ]
    differs = np.abs(hidden[0] - hidden[1]).max(axis=(0, 2)) > 0
    sees = [changed <= i or changed < PREFIX for i in range(LENGTH)]
    np.testing.assert_array_equal(differs, sees)


def test_logits_of_chosen_hidden_states_are_those_of_the_whole(params):
    inputs = some_inputs()
    whole = forward(GLM(CONFIG), params, True, *inputs)
    hidden = forward(GLM(CONFIG), params, True, *inputs, method="hidden_states")
    chosen: Any = GLM(CONFIG).apply({"params": params}, hidden[:, 5], method="logits")
    assert whole.dtype == jnp.float32
    np.testing.assert_allclose(chosen, whole[:, 5], atol=1e-5)


@pytest.mark.parametrize("separate", [0, 1])
@pytest.mark.parametrize("deterministic", [pytest.param(True, marks=pytest.mark.slow), False])
def test_the_last_layer_at_some_positions_is_that_of_all(params, deterministic, separate):
    config = dataclasses.replace(CONFIG, num_layers=3, hidden_dropout=0.2, attention_dropout=0.2)
    model = GLM(config, num_separate_layers=separate)
    values = jax.jit(model.init)(jax.random.key(1), *some_inputs())
    tree = jax.tree.map(lambda array: 5.0 * array, nn.unbox(values)["params"])
    positions = jnp.asarray([[PREFIX - 1, LENGTH - 1], [0, PREFIX]])
    rngs = {"dropout": jax.random.key(2)}

    @functools.partial(jax.jit, static_argnums=1)
    def loss_and_gradients(tree, at_positions):
        def loss(tree):
            run = functools.partial(
                model.apply, {"params": tree}, deterministic=deterministic, rngs=rngs
            )
            if at_positions:
                hidden: Any = run(*some_inputs(), positions=positions, method="hidden_states")
            else:
                full: Any = run(*some_inputs(), method="hidden_states")
                hidden = jnp.take_along_axis(full, positions[..., None], axis=1)
            return jnp.sum(jnp.sin(hidden)), hidden

        return jax.value_and_grad(loss, has_aux=True)(tree)

    (_, expected), gradients = loss_and_gradients(tree, False)
    (_, found), gradients_found = loss_and_gradients(tree, True)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    for one, other in zip(*map(jax.tree.leaves, (gradients_found, gradients)), strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-5 * np.abs(other).max())


def test_logits_are_float32_and_close_when_computed_in_bfloat16(params):
    inputs = some_inputs()
    exact = forward(GLM(CONFIG), params, True, *inputs)
    model = GLM(dataclasses.replace(CONFIG, compute_dtype="bfloat16"))
    hidden = forward(model, params, True, *inputs, method="hidden_states")
    logits = forward(model, params, True, *inputs)
    assert (hidden.dtype, logits.dtype) == (jnp.bfloat16, jnp.float32)
    # bfloat16 keeps 8 bits: the error stays near a few parts in 2^8 of the spread of the logits.
    assert 0 < np.sqrt(np.mean((logits - exact) ** 2)) < 0.05 * np.std(exact)


@pytest.mark.parametrize("offset", [0.0, 1.0, 10.0])
def test_layernorm_is_that_of_float64(offset):
    inputs = np.random.default_rng(0).normal(offset, 1.0, (8, 1024)).astype(np.float32)
    norm = layer_norm(1e-5, "float32")
    outputs: Any = norm.apply(nn.unbox(norm.init(jax.random.key(0), inputs)), inputs)
    exact = inputs.astype(np.float64)
    exact -= exact.mean(1, keepdims=True)
    exact /= np.sqrt(np.mean(exact**2, 1, keepdims=True) + 1e-5)
    np.testing.assert_allclose(outputs, exact, atol=2e-6 * (1 + offset**2), rtol=0)


@pytest.mark.parametrize("deterministic", [True, False])
def test_gradients_are_the_same_with_remat_and_without_a_loop(params, deterministic):
    inputs = some_inputs()
    rngs = None if deterministic else {"dropout": jax.random.key(3)}

    def gradients(remat: str, scan_layers: bool = True):
        model = GLM(dataclasses.replace(CONFIG, remat=remat, scan_layers=scan_layers))

        @jax.jit
        @jax.grad
        def gradient(params):
            return jnp.mean(forward(model, params, deterministic, *inputs, rngs=rngs) ** 2)

        return gradient(params)

    kept = gradients("none")
    for computed_again in (gradients("full"), gradients("minimal", scan_layers=False)):
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
            kept,
            computed_again,
        )


def test_dropout_is_off_by_default_and_follows_its_key(params):
    model, inputs = GLM(CONFIG), some_inputs()
    plain: Any = model.apply({"params": params}, *inputs)
    np.testing.assert_allclose(plain, forward(model, params, True, *inputs), atol=1e-4)
    first, again, other = (
        forward(model, params, False, *inputs, rngs={"dropout": jax.random.key(seed)})
        for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 0.01
    assert np.abs(first - plain).max() > 0.01


@pytest.mark.parametrize("place", ["embedding_dropout", "hidden_dropout", "attention_dropout"])
def test_every_dropout_acts_by_itself(params, place):
    none = {"embedding_dropout": 0.0, "hidden_dropout": 0.0, "attention_dropout": 0.0}
    model = GLM(dataclasses.replace(CONFIG, **(none | {place: 0.5})))
    inputs, rngs = some_inputs(), {"dropout": jax.random.key(0)}
    dropped = forward(model, params, False, *inputs, rngs=rngs)
    assert np.abs(dropped - forward(model, params, True, *inputs)).max() > 0.01


def test_initial_values_have_the_published_spread():
    config = GLMConfig(
        vocab_size=512, num_layers=8, hidden_size=128, num_attention_heads=2, max_sequence_length=64
    )
    params = initial_params(config)
    layers = params["layers"]
    residual = 0.02 / np.sqrt(2 * 8)
    for array, spread in (
        (params["word_embedding"], 0.02),
        (params["position_embedding"], 0.02),
        (params["block_position_embedding"], 0.02),
        (layers["attention"]["query_key_value"]["kernel"], 0.02),
        (layers["mlp"]["up"]["kernel"], 0.02),
        (layers["attention"]["output"]["kernel"], residual),
        (layers["mlp"]["down"]["kernel"], residual),
    ):
        assert np.std(array) == pytest.approx(spread, rel=0.05)
        assert abs(np.mean(array)) < 0.05 * spread
    named = {
        jax.tree_util.keystr(path): array
        for path, array in jax.tree_util.tree_leaves_with_path(params)
    }
    assert all(np.all(array == 0) for path, array in named.items() if path.endswith("['bias']"))
    assert all(np.all(array == 1) for path, array in named.items() if path.endswith("['scale']"))


def test_layers_start_different():
    kernel = initial_params()["layers"]["mlp"]["up"]["kernel"]
    assert np.abs(kernel[0] - kernel[1]).max() > 0.01


@pytest.mark.parametrize(
    ("name", "millions"),
    [
        ("demo", (1.3, 1.5)),
        ("glm_base", (109, 112)),
        ("glm_large", (333, 337)),
        ("glm_large_chinese", (354, 358)),
        ("glm_doc", (333, 337)),
        ("glm_410m", (408, 412)),
        ("glm_515m", (513, 517)),
        ("glm_roberta", (353, 357)),
        ("glm_2b", (1900, 2000)),
        ("glm_10b", (9800, 9900)),
        ("glm_10b_chinese", (9800, 9900)),
    ],
)
def test_every_published_model_has_its_size(name, millions):
    config = GLMConfig(**bindings(MODEL_FILES / f"{name}.gin"))
    inputs = [jax.ShapeDtypeStruct(shape, jnp.int32) for shape in ((1, 8), (1, 2, 8), (1,))]
    params = jax.eval_shape(GLM(config).init, jax.random.key(0), *inputs)["params"]
    total = sum(np.prod(array.shape) for array in jax.tree.leaves(params))
    D, V, N = config.hidden_size, config.vocab_size, config.num_layers
    assert (
        total == V * D + 2 * (config.max_sequence_length + 1) * D + N * (12 * D**2 + 13 * D) + 2 * D
    )
    assert millions[0] * 1e6 <= total <= millions[1] * 1e6
    assert V % 128 == 0


def bindings(file: Path) -> dict[str, Any]:
    """The values that a file of plain `model.name = value` lines gives."""
    lines = [line for line in file.read_text().splitlines() if line and line[0] != "#"]
    pairs = [line.removeprefix("model.").split(" = ") for line in lines]
    return {name: ast.literal_eval(value) for name, value in pairs}
