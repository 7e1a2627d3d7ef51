"""Counting operations, and the share of a chip's peak."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import pytest

from glm_jax.model import GLM, GLMConfig
from glm_jax.model.flops import (
    forward_flops_per_token,
    model_flops_utilisation,
    peak_flops_per_second,
    training_flops_per_token,
)

CONFIG = GLMConfig(
    vocab_size=512, num_layers=1, hidden_size=128, num_attention_heads=2, max_sequence_length=64
)


@dataclasses.dataclass(frozen=True)
class Chip:
    device_kind: str


def test_the_count_is_what_the_compiler_counts():
    """One layer only: the compiler's analysis counts the body of a loop once."""
    batch, length = 4, 64
    inputs = [
        jax.ShapeDtypeStruct(shape, jnp.int32)
        for shape in ((batch, length), (batch, 2, length), (batch,))
    ]
    model = GLM(CONFIG)
    variables = jax.eval_shape(model.init, jax.random.key(0), *inputs)
    analysis = jax.jit(model.apply).lower(variables, *inputs).cost_analysis()
    assert analysis is not None
    counted = forward_flops_per_token(CONFIG, length) * batch * length
    # The compiler's figure has softmax, LayerNorm and the like on top.
    assert counted < analysis["flops"] < 1.1 * counted


def test_training_is_three_times_forward_and_logits_can_be_fewer():
    whole = training_flops_per_token(CONFIG, 64)
    assert whole == 3 * forward_flops_per_token(CONFIG, 64)
    saved = whole - training_flops_per_token(CONFIG, 64, logit_fraction=0.25)
    assert saved == 3 * 2 * 128 * 512 * 0.75


@pytest.mark.parametrize(
    ("kind", "teraflops"),
    [
        ("TPU v4", 275),
        ("TPU v5 lite", 197),
        ("TPU v5", 459),
        ("TPU v5p", 459),
        ("TPU v6 lite", 918),
        ("NVIDIA H100 80GB HBM3", 989),
        ("NVIDIA H100 PCIe", 756),
        ("NVIDIA H200", 989),
        ("NVIDIA A100-SXM4-80GB", 312),
        ("NVIDIA L4", 121),
        ("NVIDIA L40S", 362),
    ],
)
def test_peaks_by_what_chips_call_themselves(kind, teraflops):
    assert peak_flops_per_second(Chip(kind)) == teraflops * 1e12


def test_utilisation_is_the_share_of_all_chips_and_unknown_on_cpu():
    speed = 275e12 / training_flops_per_token(CONFIG, 64)
    assert model_flops_utilisation(CONFIG, 64, speed, [Chip("TPU v4")] * 4) == pytest.approx(0.25)
    assert model_flops_utilisation(CONFIG, 64, speed, [Chip("cpu")]) is None
    assert model_flops_utilisation(CONFIG, 64, speed, [Chip("TPU v4"), Chip("cpu")]) is None


def test_frozen_layers_have_no_products_for_their_gradients():
    full = training_flops_per_token(CONFIG, 64)
    # A product of a frozen kernel is computed forward, and backward for its input only.
    assert training_flops_per_token(CONFIG, 64, 1.0, 1000) == full - 2 * 1000
