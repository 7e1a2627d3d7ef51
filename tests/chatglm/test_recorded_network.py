"""The network against recorded numbers of the published code."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from glm_jax.convert.array_layouts import to_native
from glm_jax.convert.layouts.chatglm_names import to_thirds
from glm_jax.convert.names import find
from glm_jax.model import GLM, decoding_network, decoding_params
from glm_jax.model.intermediates import apply_with_stream
from glm_jax.model.paged_attention import PAGE_SIZE
from tests.chatglm.recorded import (
    MIXED_SPECIAL,
    TOLERANCE,
    arrays,
    inputs_of,
    logits_of,
    network,
    padded_inputs,
)

HEADS = 4
pytestmark = pytest.mark.usefixtures("shared")


def assert_close(found: Any, expected: np.ndarray) -> None:
    np.testing.assert_allclose(np.asarray(found), expected, rtol=0, atol=TOLERANCE)


def test_hidden_states_and_logits_of_bare_ids():
    case, (model, params) = arrays("io"), network("ckpt")
    inputs = inputs_of(case["plain/input_ids"])
    np.testing.assert_array_equal(inputs[1], case["plain/position_ids"])
    hidden, stream = jax.jit(partial(apply_with_stream, model))(params, *inputs)
    for layer in range(model.config.num_layers):
        assert_close(np.swapaxes(stream[layer], 0, 1), case[f"plain/hidden_{layer}"])
    assert_close(np.swapaxes(hidden, 0, 1), case[f"plain/hidden_{model.config.num_layers}"])
    assert_close(logits_of(model, params, inputs), case["plain/logits"])


def test_what_a_row_sees_is_what_its_mask_showed():
    case = arrays("io")
    _, _, prefix_length = inputs_of(case["plain/input_ids"])
    length = case["plain/input_ids"].shape[1]
    index = np.arange(length)
    seen = (index <= index[:, None]) | (index < prefix_length[:, None, None])
    np.testing.assert_array_equal(seen[:, None], ~case["plain/attention_mask"])


@pytest.mark.parametrize(
    ("recorded", "name", "folder", "base"),
    [
        ("io", "left_padded", "ckpt", None),
        ("prefix_io", "prefix/left_padded", "ckpt_prefix", "ckpt"),
        ("prefix_io", "prefix_projection/left_padded", "ckpt_prefix_projection", "ckpt"),
        ("quantized_io", "int8/left_padded", "ckpt_int8", None),
        ("quantized_io", "int4/left_padded", "ckpt_int4", None),
    ],
)
def test_logits_of_rows_padded_on_the_left(recorded, name, folder, base):
    case = arrays(recorded)
    model, params = network(folder, base)
    inputs, mask = padded_inputs(case, name)
    found = np.asarray(logits_of(model, params, inputs, mask))
    is_text = mask[:, 0].any(axis=-1)  # rows of padding see nothing, and their logits mean nothing
    assert_close(found[is_text], case[f"{name}/logits"][is_text])


def test_one_dimensional_positions():
    case, (model, params) = arrays("io"), network("ckpt")
    model = model.clone(config=dataclasses.replace(model.config, block_position_encoding=False))
    ids, positions, prefix = inputs_of(case["position_1d/input_ids"], two_dimensional=False)
    np.testing.assert_array_equal(positions[:, 0], case["position_1d/position_ids"])
    for given in (positions, positions[:, 0]):
        assert_close(logits_of(model, params, (ids, given, prefix)), case["position_1d/logits"])


@pytest.mark.parametrize(
    ("recorded", "name", "expected", "folder", "base"),
    [
        ("io", "ptuning", "ptuning/logits", "ckpt_ptuning", None),
        ("io", "ptuning_projection", "ptuning_projection/logits", "ckpt_ptuning_projection", None),
        ("prefix_io", "prefix/plain", "prefix/plain/logits", "ckpt_prefix", "ckpt"),
        (
            "prefix_io",
            "prefix_projection/plain",
            "prefix_projection/plain/logits",
            "ckpt_prefix_projection",
            "ckpt",
        ),
        ("prefix_io", "prefix/plain", "prefix/plain/int4_base_logits", "ckpt_prefix", "ckpt_int4"),
        (
            "prefix_io",
            "prefix_projection/plain",
            "prefix_projection/plain/int4_base_logits",
            "ckpt_prefix_projection",
            "ckpt_int4",
        ),
        ("quantized_io", "int8/plain", "int8/plain/logits", "ckpt_int8", None),
        ("quantized_io", "int4/plain", "int4/plain/logits", "ckpt_int4", None),
    ],
)
def test_logits_of_prefixes_and_quantized_weights(recorded, name, expected, folder, base):
    model, params = network(folder, base)
    case = arrays(recorded)
    assert_close(logits_of(model, params, inputs_of(case[f"{name}/input_ids"])), case[expected])


@pytest.mark.parametrize("folder", ["ckpt_mixed_bin", "ckpt_mixed_safetensors"])
def test_logits_of_float32_layer_norms_in_a_float16_file(folder):
    case, (model, params) = arrays("mixed_io"), network(folder)
    inputs = inputs_of(case["plain/input_ids"], MIXED_SPECIAL)
    assert_close(logits_of(model, params, inputs), case["plain/logits"])


@pytest.mark.parametrize("name", ["ptuning", "ptuning_projection"])
def test_keys_and_values_of_a_prefix(name):
    model, params = network(f"ckpt_{name}")
    params = jax.jit(partial(decoding_params, model.config))(params)
    for layer in range(model.config.num_layers):
        expected = arrays("io")[f"{name}/prompt_{layer}"][:, :, 0]  # [2, P, H, K]
        found = params[f"blocks_{layer}"]["attention"]["prefix"]["embedding"]
        assert_close(np.swapaxes(found, 0, 1).reshape(expected.shape), expected)


def test_the_cache_of_a_prompt_and_steps_after_it():
    case, (model, params) = arrays("io"), network("ckpt")
    ids, positions, prefix = inputs_of(case["plain/input_ids"])
    decoding = decoding_network(model.config)
    params = decoding_params(model.config, params)
    length = ids.shape[1]
    padding = ((0, 0), (0, PAGE_SIZE - length))
    padded = np.pad(ids, padding), np.pad(positions, ((0, 0), *padding)), prefix
    hidden, cache = decoding.apply({"params": params}, *padded, method="read")
    logits = decoding.apply({"params": params}, hidden[:, :length], method="logits")
    assert_close(logits, case["plain/logits"])
    for layer, pair in enumerate(cache):
        for name, pages in zip("kv", pair, strict=True):
            found = np.asarray(pages)[0].transpose(2, 0, 1, 3)[:length]  # [s, b, H, K]
            assert_close(found, case[f"plain/past_{layer}_{name}"])


def test_loss_and_gradients():
    case, (model, params) = arrays("io"), network("ckpt")
    inputs, labels = inputs_of(case["labels/input_ids"]), case["labels/labels"]
    loss, gradient = jax.jit(jax.value_and_grad(partial(shifted_loss, model)))(
        params, inputs, labels
    )
    assert_close(loss, case["labels/loss"])
    checked = 0
    for key, expected in case.items():
        if not key.startswith("labels/grad/"):
            continue
        found = find(key.removeprefix("labels/grad/"))
        assert found is not None
        entry, layer = found
        if "query_key_value" in key:
            expected = to_thirds(expected, HEADS)
        leaf = leaf_of(gradient, entry.native)
        leaf = leaf if layer is None else leaf[layer]
        assert_close(leaf, to_native(entry.layout, expected))
        checked += 1
    assert checked == 10


@pytest.mark.parametrize("name", ["prefix", "prefix_projection"])
def test_loss_and_gradients_of_prefixes(name):
    case, (model, params) = arrays("prefix_io"), network(f"ckpt_{name}", "ckpt")
    labels = arrays("io")["labels/labels"]
    inputs = inputs_of(arrays("io")["labels/input_ids"])
    loss, gradient = jax.jit(jax.value_and_grad(partial(shifted_loss, model)))(
        params, inputs, labels
    )
    assert_close(loss, case[f"{name}/loss"])
    own, recorded = gradient["layers"]["attention"]["prefix"], f"{name}/grad/transformer"
    num_layers = model.config.num_layers
    if name == "prefix":
        rows = case[f"{recorded}.prefix_encoder.embedding.weight"]
        expected = rows.reshape(len(rows), num_layers, 2, -1).swapaxes(0, 1)
        assert_close(own["embedding"], expected)
        return
    shared = gradient["prefix_encoder"]
    assert_close(shared["embedding"], case[f"{recorded}.prefix_encoder.embedding.weight"])
    assert_close(shared["hidden"]["bias"], case[f"{recorded}.prefix_encoder.trans.0.bias"])
    assert_close(shared["hidden"]["kernel"], case[f"{recorded}.prefix_encoder.trans.0.weight"].T)
    kernel = case[f"{recorded}.prefix_encoder.trans.2.weight"]
    expected = kernel.reshape(num_layers, 2, -1, kernel.shape[1]).transpose(0, 3, 1, 2)
    assert_close(own["projection"]["kernel"], expected)
    bias = case[f"{recorded}.prefix_encoder.trans.2.bias"].reshape(num_layers, 2, -1)
    assert_close(own["projection"]["bias"], bias)


def shifted_loss(model: GLM, params: Any, inputs: tuple, labels: np.ndarray) -> jax.Array:
    """The published loss: each position predicts the next label, -100 counts nothing."""
    logits = model.apply({"params": params}, *inputs)
    assert isinstance(logits, jax.Array)
    targets = labels[:, 1:]
    log_probs = jax.nn.log_softmax(logits[:, :-1])
    chosen = jnp.take_along_axis(log_probs, jnp.maximum(targets, 0)[..., None], axis=-1)[..., 0]
    counts = targets != -100
    return -jnp.sum(jnp.where(counts, chosen, 0.0)) / jnp.sum(counts)


def leaf_of(tree: Any, path: str) -> np.ndarray:
    for name in path.split("/"):
        tree = tree[name]
    return np.asarray(tree)
