"""Quantized matrices: rounding, packing, and products of every kind."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glm_jax.convert.quantize import expand_rows, pack_int4, quantize_rows, unpack_int4
from glm_jax.model import GLMConfig, decoding_network, decoding_params, network_of
from glm_jax.model.initial import initial_params
from glm_jax.model.quantized_product import _products, column_blocks, row_products

BITS = {"int8": 8, "int4": 4}


def test_the_first_of_a_pair_is_in_the_high_bits():
    packed = pack_int4(np.array([[7, -7, 3, -1]], np.int8))
    assert packed.view(np.uint8).tolist() == [[0x79, 0x3F]]


@given(st.lists(st.integers(-8, 7), min_size=2, max_size=12).filter(lambda row: len(row) % 2 == 0))
def test_unpacking_undoes_packing(row):
    integers = np.array([row], np.int8)
    np.testing.assert_array_equal(unpack_int4(pack_int4(integers)), integers)


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_no_element_is_further_than_half_a_step(bits, dtype):
    """Quotients above 64 are multiples of 1/16 in float16, which may move one to its neighbour."""
    matrix = np.random.default_rng(0).normal(size=(40, 32)).astype(dtype)
    matrix[3] = 0
    integers, scales = quantize_rows(matrix, bits)
    assert integers.dtype == np.int8 and scales.dtype == dtype
    expanded = expand_rows(integers, scales, bits, np.dtype(np.float32))
    step = scales.astype(np.float32)[:, None]
    rounding = 1 / 16 if dtype == np.float16 else 1e-4
    assert (np.abs(expanded - matrix) <= (0.5 + rounding) * step).all()
    assert (expanded[3] == 0).all()


@pytest.mark.parametrize("rows", [1, 3, 40])
@pytest.mark.parametrize("per_byte", [1, 2])
@pytest.mark.parametrize("shape", [(64, 3, 24), (272, 134), (1280, 512), (74, 7)])
@pytest.mark.parametrize("platform", ["cpu", "default"])
def test_products_of_every_shape(rows, per_byte, shape, platform, monkeypatch):
    """Blocks of one and of several tiles, and sizes that few numbers divide."""
    monkeypatch.setattr("glm_jax.model.quantized_product._TILE_ROWS", 320)
    if platform == "default":
        monkeypatch.setattr("glm_jax.model.quantized_product._on_cpu", _products)
    draw = np.random.default_rng(0)
    integers = draw.integers(-8, 8, shape).astype(np.int8)
    inputs = draw.normal(size=(rows, shape[0])).astype(np.float32)
    stored = integers
    if per_byte == 2:
        stored = pack_int4(integers.reshape(shape[0], -1).T).T.reshape(-1, *shape[1:])
    kernel = column_blocks(jnp.asarray(stored))
    assert kernel.shape[-2] * per_byte == shape[0] and kernel.shape[-1] <= 128
    found = jax.jit(lambda *given: row_products(*given))(inputs, kernel)
    expected = np.einsum("ri,i...->r...", inputs.astype(np.float64), integers)
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())


def test_small_inputs_of_int4_do_not_vanish():
    """The numbers are scaled by powers of two on the way."""
    stored = jnp.full((4, 8), 0x7F, jnp.int8)  # 7 and -1
    for dtype, value in ((jnp.float32, 1e-25), (jnp.bfloat16, 1e-25), (jnp.float16, 1e-4)):
        found = row_products(jnp.full((1, 8), value, dtype), column_blocks(stored))
        assert found.dtype == dtype
        np.testing.assert_allclose(np.asarray(found, np.float64), 4 * 6 * value, rtol=2e-2)


@pytest.mark.parametrize("quantization", ["int8", "int4"])
def test_any_network_computes_with_the_expanded_matrices(quantization):
    """GLM too: the stacked form, and that of decoding, against plain float32 matrices."""
    sizes: dict[str, Any] = {
        "vocab_size": 40,
        "num_layers": 2,
        "hidden_size": 32,
        "num_attention_heads": 2,
        "max_sequence_length": 64,
    }
    config = GLMConfig(**sizes, quantization=quantization)
    model, plain = network_of(config), network_of(GLMConfig(**sizes))
    params = nn.unbox(initial_params(model, jax.random.key(0)))
    draw, bits = np.random.default_rng(0), BITS[quantization]
    expanded = jax.tree.map(lambda leaf: leaf, params)
    for path in (("attention", "query_key_value"), ("attention", "output"), ("mlp", "up"),
                 ("mlp", "down")):  # fmt: skip
        linear, other = params["layers"][path[0]][path[1]], expanded["layers"][path[0]][path[1]]
        stored = draw.integers(-128, 128, linear["kernel"].shape).astype(np.int8)
        scale = draw.random(linear["kernel_scale"].shape).astype(np.float32) / 2**bits
        linear["kernel"], linear["kernel_scale"] = jnp.asarray(stored), jnp.asarray(scale)
        numbers = stored
        if bits == 4:
            pairs = np.stack([stored >> 4, (stored << 4) >> 4], axis=2)
            numbers = pairs.reshape(len(stored), -1, *stored.shape[2:])
        other["kernel"] = jnp.asarray(numbers * scale[:, None])
        del other["kernel_scale"]
    tokens = draw.integers(0, 40, (2, 64))
    positions = np.stack([np.arange(64), np.zeros(64, np.int64)])[None].repeat(2, axis=0)
    inputs = (tokens, positions, np.array([20, 64]))
    expected: Any = plain.apply({"params": expanded}, *inputs)
    found: Any = model.apply({"params": params}, *inputs)
    np.testing.assert_allclose(found, expected, atol=1e-4)
    hidden, _ = decoding_network(config).apply(
        {"params": decoding_params(config, params)}, *inputs, method="read"
    )
    expected, _ = decoding_network(GLMConfig(**sizes)).apply(
        {"params": decoding_params(GLMConfig(**sizes), expanded)}, *inputs, method="read"
    )
    np.testing.assert_allclose(hidden, expected, atol=1e-4)
