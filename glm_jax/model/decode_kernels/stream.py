"""The residual stream between the kernels of decoding.

A kernel adds to the stream what the one before it found, normalises the sum, and returns both the
sum and its own finding, which tensor-parallel devices add up before the next kernel takes it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jaxtyping import Array, Float


class Stream(NamedTuple):
    """Terms of the residual stream: base[0] + sum(update) + bias.

    Attributes:
      base: the stream before the last half block, a copy from each core.
      update: what the last half block adds, a part from each core.
      bias: of its last linear map.
    """

    base: Float[Array, "copies B D"]
    update: Float[Array, "parts B D"]
    bias: Float[Array, "D"]


class Norm(NamedTuple):
    """The parameters of a LayerNorm."""

    scale: Float[Array, "D"]
    bias: Float[Array, "D"]


def stream_of(hidden: Float[Array, "B D"]) -> Stream:
    """The stream before the first kernel."""
    zeros = jnp.zeros((1, *hidden.shape), hidden.dtype)
    return Stream(hidden[None], zeros, zeros[0, 0])


def joined(stream: Stream) -> Float[Array, "B D"]:
    """The residual stream, in the dtype of its base."""
    base, update, bias = (array.astype(jnp.float32) for array in stream)
    return (base[0] + jnp.sum(update, axis=0) + bias).astype(stream.base.dtype)


def normalized(values: Float[Array, "B D"], norm: Norm, epsilon: float) -> Float[Array, "B D"]:
    """LayerNorm in float32, as `glm_jax.model.layers.layer_norm` computes it."""
    values = values.astype(jnp.float32)
    mean = jnp.mean(values, axis=1, keepdims=True)
    variance = jnp.mean(jnp.square(values), axis=1, keepdims=True) - jnp.square(mean)
    factor = lax.rsqrt(jnp.maximum(variance, 0.0) + epsilon) * norm.scale
    return (values - mean) * factor + norm.bias


def write_inputs(stream: Stream, norm: Norm, epsilon: float, base_out: Any, inputs: Any) -> None:
    """Writes the residual stream and its normalised form; the first thing that a kernel does.

    Args:
      stream, norm: references to their arrays.
      epsilon: of the LayerNorm.
      base_out: reference [1, B, D] to the stream that the kernel returns.
      inputs: reference [B, D] to what the half block computes with.
    """
    base_out[0] = joined(Stream(*(ref[...] for ref in stream)))
    norm = Norm(*(ref[...] for ref in norm))
    inputs[...] = normalized(base_out[0], norm, epsilon).astype(inputs.dtype)


def stream_specs(num_parts: int, batch_size: int, hidden_size: int) -> list[pl.BlockSpec]:
    """How a kernel reads a stream and a LayerNorm: all of them, once."""
    shapes = [(1, batch_size, hidden_size), (num_parts, batch_size, hidden_size)]
    shapes += [(hidden_size,)] * 3
    return [pl.BlockSpec(shape, _at_start(len(shape))) for shape in shapes]


def _at_start(num_axes: int) -> Callable[..., tuple[int, ...]]:
    return lambda *_: (0,) * num_axes


def core_spec(batch_size: int, hidden_size: int) -> pl.BlockSpec:
    """How a kernel writes its copy or part of a stream: one for each core."""
    return pl.BlockSpec((1, batch_size, hidden_size), lambda core, *_: (core, 0, 0))


def product(
    left: Float[Array, "B I"], right: Float[Array, "..."], right_axis: int, *, interpret: bool
) -> Float[Array, "B O"]:
    """Every row times a matrix, over its last axis and that axis of the matrix, in float32.

    Emulated kernels widen the operands first, which gives the same numbers: XLA for CPUs lacks some
    products of bfloat16.
    """
    if interpret:
        left, right = left.astype(jnp.float32), right.astype(jnp.float32)
    axes = (((1,), (right_axis,)), ((), ()))
    return lax.dot_general(left, right, axes, preferred_element_type=jnp.float32)
