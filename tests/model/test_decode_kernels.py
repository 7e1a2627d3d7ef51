"""A step of decoding by the kernels for TPUs, emulated, gives what plain operations give."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from glm_jax.model import ChatGLMConfig, GLMConfig, decoding_network, decoding_params, network_of
from glm_jax.model.attention.mask import memory_mask
from glm_jax.model.decode_kernels.layers import DecodeKernels, kernels_for
from glm_jax.model.decode_kernels.tiling import Shard
from glm_jax.model.kv_cache import empty_cache
from glm_jax.model.paged_attention import CacheLayout

CONFIG = GLMConfig(
    vocab_size=200, num_layers=2, hidden_size=256, num_attention_heads=4, max_sequence_length=32
)
CHATGLM = ChatGLMConfig(
    vocab_size=200,
    num_layers=2,
    hidden_size=256,
    num_attention_heads=2,
    max_sequence_length=32,
)
BATCH = 3
# Of logits up to 10; of bfloat16 with the rounding of two layers.
TOLERANCES = {"float32": 2e-5, "bfloat16": 0.15}


def one_layer(config: GLMConfig, **changes: Any) -> GLMConfig:
    return dataclasses.replace(config, num_layers=1, **changes)


def random_params(config: GLMConfig) -> Any:
    """Parameters with biases, and matrices large enough for attention far from uniform."""
    model, draw = network_of(config), np.random.default_rng(0)
    tokens = np.zeros((1, 4), np.int32)
    boxed = jax.eval_shape(
        model.init, jax.random.key(0), tokens, np.zeros((1, 2, 4), np.int32), np.ones(1, np.int32)
    )

    def random(keys: tuple[Any, ...], leaf: jax.ShapeDtypeStruct) -> jnp.ndarray:
        if leaf.dtype == jnp.int8:
            return jnp.asarray(draw.integers(-128, 128, leaf.shape), jnp.int8)
        if keys[-1].key == "kernel_scale":
            largest = {"int8": 128, "int4": 8}[config.quantization]
            return jnp.asarray(draw.uniform(0.05, 0.15, leaf.shape) / largest, leaf.dtype)
        mean = 1.0 if keys[-1].key == "scale" else 0.0
        return jnp.asarray(mean + 0.06 * draw.normal(size=leaf.shape), leaf.dtype)

    return jax.tree_util.tree_map_with_path(random, nn.unbox(boxed)["params"])


def step(kernels: DecodeKernels | None, config: GLMConfig, num_slots: int, start: list[int]) -> Any:
    """Logits and caches of one step with a random cache."""
    draw = np.random.default_rng(1)
    network = decoding_network(config, kernels=kernels)
    params = decoding_params(config, random_params(config))
    layout = CacheLayout(num_slots, config.num_attention_heads)
    cache = jax.tree.map(
        lambda array: jnp.asarray(draw.normal(size=array.shape), array.dtype),
        empty_cache(config, BATCH, num_slots, layout),
    )
    tokens = draw.integers(0, config.vocab_size, (BATCH, 1))
    position_ids = draw.integers(0, config.num_positions, (BATCH, 2, 1))
    slots = jnp.asarray(start, jnp.int32)
    mask = memory_mask(jnp.where(slots < num_slots, slots, 0), 1, num_slots)
    apply = jax.jit(partial(network.apply, method="next_logits"))
    return apply({"params": params}, tokens, position_ids, cache, slots, mask)


@pytest.mark.parametrize(
    ("config", "num_cores", "num_slots", "start"),
    [
        (CONFIG, 2, 2048, [1040, 5, 2048]),
        (one_layer(CONFIG, compute_dtype="bfloat16"), 1, 64, [0, 50, 64]),
        (one_layer(CONFIG, quantization="int4"), 2, 64, [17, 3, 63]),
        (
            one_layer(CONFIG, quantization="int4", compute_dtype="bfloat16"),
            *(1, 64, [17, 3, 63]),
        ),
        (CHATGLM, 1, 64, [17, 63, 0]),
        (one_layer(CHATGLM, quantization="int8"), 1, 64, [17, 63, 0]),
    ],
)
def test_kernels_give_what_plain_operations_give(config, num_cores, num_slots, start):
    tolerance = TOLERANCES[config.compute_dtype]
    expected, expected_cache = step(None, config, num_slots, start)
    kernels = DecodeKernels(num_cores, interpret=True)
    found, cache = step(kernels, config, num_slots, start)
    # What a row computes that has no slot of its own is of no use.
    used = np.asarray(start) < num_slots
    assert found.dtype == jnp.float32
    assert np.ptp(expected) > 3.0
    np.testing.assert_allclose(np.asarray(found)[used], np.asarray(expected)[used], atol=tolerance)
    for one, other in zip(jax.tree.leaves(cache), jax.tree.leaves(expected_cache), strict=True):
        one, other = np.asarray(one, np.float32), np.asarray(other, np.float32)
        np.testing.assert_allclose(one, other, atol=tolerance)
        # All other slots stay as they are, bit for bit.
        old = np.ones(one.shape, bool)
        for row, slot in enumerate(start):
            old[:, row, :, slot : slot + 1] = False
        np.testing.assert_array_equal(one[old], other[old])


def test_kernels_are_used(monkeypatch):
    """The comparison above compares two programs."""
    calls = []

    def run_step(*inputs):
        calls.append(inputs)
        return run(*inputs)

    from glm_jax.model import decoding

    run = decoding.run_step
    monkeypatch.setattr(decoding, "run_step", run_step)
    jax.eval_shape(lambda: step(DecodeKernels(1, interpret=True), CONFIG, 1024, [1, 2, 3]))
    assert len(calls) == 1
    # A network that no block divides has plain operations, as one whose weights are gathered.
    odd = dataclasses.replace(CONFIG, hidden_size=192, num_attention_heads=3)
    assert DecodeKernels(1).shard(odd, {}) is None
    assert DecodeKernels(1).shard(CONFIG, {"tensor": 2, "fsdp": 2}) is None


def test_devices_with_two_cores():
    assert kernels_for("TPU v5") == DecodeKernels(2)
    assert kernels_for("TPU v5 lite") == DecodeKernels(1)
    assert kernels_for("TPU v6 lite") == DecodeKernels(1)
    assert kernels_for("cpu") is None


def test_blocks_of_published_sizes():
    glm_2b = Shard(2048, 2048, 8192, 64, 16, 2, 1)
    assert (glm_2b.attention_columns, glm_2b.mlp_columns) == (256, 512)
    glm_10b = Shard(4096, 1024, 4096, 64, 16, 2, 2)
    assert (glm_10b.attention_columns, glm_10b.mlp_columns) == (128, 256)
    assert glm_10b.rows_at_once(64, 1024) == 16
    assert glm_10b.rows_at_once(60, 1024) == 15
    assert not dataclasses.replace(glm_2b, attention_width=192).is_tiled
    # Compiled for v5e and v5p with so many.
    assert (glm_2b.max_batch_size, glm_10b.max_batch_size) == (372, 197)
