"""The residual stream between the kernels of decoding.

A kernel adds to the stream what the one before it found, normalises the sum, and returns both what
the next update is added to and its own finding, which tensor-parallel devices add up before the
next kernel takes it.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jaxtyping import Array, Float

from glm_jax.model.decode_kernels.matrices import apart


class Stream(NamedTuple):
    """Terms of the residual stream: base[0] + sum(update) + bias.

    Attributes:
      base: what the last half block adds to, a copy from each core.
      update: what it adds, a part from each core; None before the first.
      bias: of its last linear map.
    """

    base: Float[Array, "copies B D"]
    update: Float[Array, "parts B D"] | None = None
    bias: Float[Array, "D"] | None = None


class Norm(NamedTuple):
    """The parameters of a LayerNorm."""

    scale: Float[Array, "D"]
    bias: Float[Array, "D"]


@dataclasses.dataclass(frozen=True)
class HalfBlock:
    """How both half blocks of a network compute.

    Attributes:
      epsilon: of the LayerNorm.
      residual_scale: updates are added to the normalised stream times this, as in ChatGLM-6B; None
        where they are added to the stream itself.
      update_dtype: of what a half block adds.
      interpret: whether Pallas emulates the kernels instead of compiling them for a TPU.
    """

    epsilon: float
    residual_scale: float | None
    update_dtype: Any
    interpret: bool


# Inputs of a kernel by name, with the blocks in which it reads them.
Inputs = dict[str, tuple[jax.Array, pl.BlockSpec]]


def stream_inputs(stream: Stream, norm: Norm) -> Inputs:
    """A stream and a LayerNorm, which a kernel reads once and in one block each."""
    arrays = stream._asdict() | {"norm_scale": norm.scale, "norm_bias": norm.bias}
    inputs = {
        name: (array, _in_one_block(array)) for name, array in arrays.items() if array is not None
    }
    inputs["base"] = (stream.base, pl.BlockSpec((1, *stream.base.shape[1:]), lambda *_: (0, 0, 0)))
    return inputs


def _in_one_block(array: jax.Array) -> pl.BlockSpec:
    start = (0,) * array.ndim
    return pl.BlockSpec(array.shape, lambda *_: start)


def core_spec(batch_size: int, hidden_size: int) -> pl.BlockSpec:
    """How a kernel writes its copy or part of a stream: one for each core."""
    return pl.BlockSpec((1, batch_size, hidden_size), lambda core, *_: (core, 0, 0))


def joined(stream: Stream) -> Float[Array, "B D"]:
    """The residual stream, in the dtype of its base; of references inside a kernel."""
    total = stream.base[0].astype(jnp.float32)
    if stream.update is not None and stream.bias is not None:
        total += jnp.sum(stream.update[...].astype(jnp.float32), axis=0)
        total += stream.bias[...].astype(jnp.float32)
    return total.astype(stream.base.dtype)


def normalized(values: Float[Array, "B D"], norm: Norm, epsilon: float) -> Float[Array, "B D"]:
    """LayerNorm in float32, as `glm_jax.model.layers.layer_norm` computes it."""
    values = values.astype(jnp.float32)
    mean = jnp.mean(values, axis=1, keepdims=True)
    variance = jnp.mean(jnp.square(values), axis=1, keepdims=True) - jnp.square(mean)
    factor = lax.rsqrt(jnp.maximum(variance, 0.0) + epsilon) * norm.scale[...]
    return (values - mean) * factor + norm.bias[...]


def start_half(refs: Any, half: HalfBlock) -> None:
    """The first thing that a kernel does.

    Args:
      refs: references to a stream and a LayerNorm, and to what is written: `base_out`, what the
        next update is added to, `inputs`, what the half block computes with, and `total`, what it
        adds, zero so far.
      half: see there.
    """
    stream = joined(Stream(refs.base, refs.update, refs.bias))
    inputs = normalized(stream, Norm(refs.norm_scale, refs.norm_bias), half.epsilon)
    inputs = inputs.astype(refs.inputs.dtype)
    if half.residual_scale is not None:
        stream = (inputs.astype(jnp.float32) * half.residual_scale).astype(stream.dtype)
    refs.base_out[0] = stream
    refs.inputs[...] = apart(inputs, len(refs.inputs))
    refs.total[...] = jnp.zeros_like(refs.total)


def end_half(refs: Any, scale: Any) -> None:
    """The last thing that a kernel does: writes what it adds, scaled as its last matrix is."""
    total = refs.total[...]
    if scale is not None:
        total = total * scale[...].astype(jnp.float32)
    refs.update_out[0] = total.astype(refs.update_out.dtype)
