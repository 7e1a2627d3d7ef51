"""The kernel of the logits: the final LayerNorm and the product with the word table."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jaxtyping import Array, Float

from glm_jax.model.decode_kernels.matrices import product
from glm_jax.model.decode_kernels.stream import (
    HalfBlock,
    Norm,
    Stream,
    joined,
    normalized,
    stream_inputs,
)
from glm_jax.model.decode_kernels.tiling import VMEM_LIMIT_BYTES, table_rows


class LogitsRefs(NamedTuple):
    """References of the kernel, by name."""

    base: Any
    norm_scale: Any
    norm_bias: Any
    table: Any
    logits: Any
    update: Any = None
    bias: Any = None


def logits(
    stream: Stream, norm: Norm, table: Float[Array, "V D"], half: HalfBlock
) -> Float[Array, "B V"]:
    """Float32 logits of this device's part of the vocabulary.

    Args:
      stream: the residual stream after the last layer.
      norm: the final LayerNorm.
      table: word embeddings in the compute dtype.
      half: how the half blocks compute.
    """
    _, batch, hidden = stream.base.shape
    size, rows = len(table), table_rows(hidden, table.dtype.itemsize)
    inputs = stream_inputs(stream, norm)
    inputs["table"] = (table, pl.BlockSpec((rows, hidden), lambda step: (step, 0)))
    return pl.pallas_call(
        functools.partial(_kernel, names=(*inputs, "logits"), epsilon=half.epsilon),
        grid=(pl.cdiv(size, rows),),
        in_specs=[spec for _, spec in inputs.values()],
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
        interpret=half.interpret,
    )(*(array for array, _ in inputs.values()))


def _kernel(*refs: Any, names: tuple[str, ...], epsilon: float) -> None:
    """The logits of some rows of the table.

    Each step normalises the stream again: that takes less time than reading its rows, and steps can
    run on any core.
    """
    r = LogitsRefs(**dict(zip(names, refs, strict=True)))
    hidden = joined(Stream(r.base, r.update, r.bias))
    inputs = normalized(hidden, Norm(r.norm_scale, r.norm_bias), epsilon).astype(hidden.dtype)
    r.logits[...] = product(inputs, r.table[...], 1)


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
