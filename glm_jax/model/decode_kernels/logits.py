"""The kernel of the logits: the final LayerNorm and the product with the word table."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jaxtyping import Array, Float

from glm_jax.model.decode_kernels.stream import (
    Norm,
    Stream,
    joined,
    normalized,
    product,
    stream_specs,
)
from glm_jax.model.decode_kernels.tiling import VMEM_LIMIT_BYTES, table_rows


def logits(
    stream: Stream, norm: Norm, table: Float[Array, "V D"], *, epsilon: float, interpret: bool
) -> Float[Array, "B V"]:
    """Float32 logits of this device's part of the vocabulary.

    Args:
      stream: the residual stream after the last layer.
      norm: the final LayerNorm.
      table: word embeddings in the compute dtype.
      epsilon: of the LayerNorm.
      interpret: whether Pallas emulates the kernel instead of compiling it for a TPU.
    """
    _, batch, hidden = stream.base.shape
    size, rows = len(table), table_rows(hidden, table.dtype.itemsize)
    return pl.pallas_call(
        functools.partial(_kernel, epsilon=epsilon, interpret=interpret),
        grid=(pl.cdiv(size, rows),),
        in_specs=[
            *stream_specs(len(stream.update), batch, hidden),
            pl.BlockSpec((rows, hidden), lambda step: (step, 0)),
        ],
        out_specs=pl.BlockSpec((batch, rows), lambda step: (0, step)),
        out_shape=jax.ShapeDtypeStruct((batch, size), jnp.float32),
        compiler_params=pltpu.CompilerParams(
            dimension_semantics=("parallel",), vmem_limit_bytes=VMEM_LIMIT_BYTES
        ),
        cost_estimate=pl.CostEstimate(
            flops=2 * batch * hidden * size,
            transcendentals=0,
            bytes_accessed=table.nbytes + 4 * batch * size,
        ),
        name="decode_logits",
        interpret=interpret,
    )(*stream, *norm, table)


def _kernel(
    base: Any,
    update: Any,
    bias: Any,
    scale: Any,
    norm_bias: Any,
    table: Any,
    logits_out: Any,
    *,
    epsilon: float,
    interpret: bool,
) -> None:
    """The logits of some rows of the table.

    Each step normalises the stream again: that takes less time than reading its rows, and steps can
    run on any core.
    """
    hidden = joined(Stream(*(ref[...] for ref in (base, update, bias))))
    inputs = normalized(hidden, Norm(scale[...], norm_bias[...]), epsilon).astype(hidden.dtype)
    logits_out[...] = product(inputs, table[...], 1, interpret=interpret)


def side_by_side(parts: Float[Array, "T B V"], *, interpret: bool) -> Float[Array, "B T*V"]:
    """Logits of one device's words after another's.

    For a concatenation at columns that are no multiple of 128, the compiler brings the examples
    into the minor axis, where they are padded to 128.
    """
    number, batch, size = parts.shape
    return pl.pallas_call(
        _write_side_by_side,
        out_shape=jax.ShapeDtypeStruct((batch, number * size), parts.dtype),
        compiler_params=pltpu.CompilerParams(vmem_limit_bytes=VMEM_LIMIT_BYTES),
        cost_estimate=pl.CostEstimate(flops=0, transcendentals=0, bytes_accessed=2 * parts.nbytes),
        name="side_by_side",
        interpret=interpret,
    )(parts)


def _write_side_by_side(parts: Any, out: Any) -> None:
    size = parts.shape[2]
    for number in range(len(parts)):
        out[:, number * size : (number + 1) * size] = parts[number]
