"""The kernel of the second half of a block: LayerNorm and MLP."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jaxtyping import Array, Float

from glm_jax.model.decode_kernels.stream import (
    Norm,
    Stream,
    core_spec,
    product,
    stream_specs,
    write_inputs,
)
from glm_jax.model.decode_kernels.tiling import VMEM_LIMIT_BYTES, Shard


class MLPWeights(NamedTuple):
    """A device's part of an MLP, without the bias of its result, and the LayerNorm before it."""

    norm: Norm
    up: Float[Array, "F D"]
    up_bias: Float[Array, "F"]
    down: Float[Array, "D F"]


def mlp_half(
    stream: Stream,
    weights: MLPWeights,
    shard: Shard,
    *,
    epsilon: float,
    update_dtype: Any,
    interpret: bool,
) -> tuple[Float[Array, "cores B D"], Float[Array, "cores B D"]]:
    """The stream with its terms joined, and what this half block adds, in parts to be summed.

    Args:
      stream: the residual stream.
      weights: of this device.
      shard: their sizes.
      epsilon: of the LayerNorm.
      update_dtype: of what is added.
      interpret: whether Pallas emulates the kernel instead of compiling it for a TPU.
    """
    _, batch, hidden = stream.base.shape
    columns, cores = shard.mlp_columns, shard.num_cores
    assert columns is not None, "checked by Shard.is_tiled"
    steps = shard.mlp_width // columns // cores
    shape = (cores, batch, hidden)
    dtype = stream.base.dtype
    base, update = pl.pallas_call(
        functools.partial(_kernel, epsilon=epsilon, interpret=interpret),
        grid=(cores, steps),
        in_specs=[
            *stream_specs(len(stream.update), batch, hidden),
            pl.BlockSpec((columns, hidden), lambda core, step: (core * steps + step, 0)),
            pl.BlockSpec((columns,), lambda core, step: (core * steps + step,)),
            pl.BlockSpec((hidden, columns), lambda core, step: (0, core * steps + step)),
        ],
        out_specs=[core_spec(batch, hidden)] * 2,
        out_shape=[jax.ShapeDtypeStruct(shape, dtype), jax.ShapeDtypeStruct(shape, update_dtype)],
        scratch_shapes=[
            pltpu.VMEM((batch, hidden), dtype),
            pltpu.VMEM((batch, hidden), jnp.float32),
        ],
        compiler_params=pltpu.CompilerParams(
            dimension_semantics=("parallel", "arbitrary"), vmem_limit_bytes=VMEM_LIMIT_BYTES
        ),
        cost_estimate=pl.CostEstimate(
            flops=4 * batch * hidden * shard.mlp_width,
            transcendentals=batch * shard.mlp_width,
            bytes_accessed=weights.up.nbytes + weights.down.nbytes,
        ),
        name="decode_mlp",
        interpret=interpret,
    )(*stream, *weights.norm, weights.up, weights.up_bias, weights.down)
    return base, update


def _kernel(
    base: Any,
    update: Any,
    bias: Any,
    scale: Any,
    norm_bias: Any,
    up: Any,
    up_bias: Any,
    down: Any,
    base_out: Any,
    update_out: Any,
    inputs: Any,
    total: Any,
    *,
    epsilon: float,
    interpret: bool,
) -> None:
    """Adds the result of some columns of the MLP; the last step of a core writes the total."""
    step = pl.program_id(1)

    @pl.when(step == 0)
    def _() -> None:
        stream, norm = Stream(base, update, bias), Norm(scale, norm_bias)
        write_inputs(stream, norm, epsilon, base_out, inputs)
        total[...] = jnp.zeros_like(total)

    inner = product(inputs[...], up[...], 1, interpret=interpret) + up_bias[...].astype(jnp.float32)
    inner = nn.gelu(inner, approximate=True).astype(inputs.dtype)
    total[...] += product(inner, down[...], 1, interpret=interpret)

    @pl.when(step == pl.num_programs(1) - 1)
    def _() -> None:
        update_out[0] = total[...].astype(update_out.dtype)
