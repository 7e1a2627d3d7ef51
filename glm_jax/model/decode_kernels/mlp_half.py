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

from glm_jax.model.decode_kernels.matrices import (
    Matrix,
    add_columns_product,
    apart,
    columns_product,
    input_columns_spec,
    output_columns_spec,
)
from glm_jax.model.decode_kernels.stream import (
    HalfBlock,
    Inputs,
    Norm,
    Stream,
    core_spec,
    end_half,
    start_half,
    stream_inputs,
)
from glm_jax.model.decode_kernels.tiling import VMEM_LIMIT_BYTES, Shard


class MLPWeights(NamedTuple):
    """A device's part of an MLP, without the bias of its result, and the LayerNorm before it."""

    norm: Norm
    up: Matrix  # [F, D]
    up_bias: Float[Array, "F"]
    down: Matrix  # [D, F]


class MLPRefs(NamedTuple):
    """References of the kernel, by name; scales are None without integers."""

    base: Any
    norm_scale: Any
    norm_bias: Any
    up: Any
    up_bias: Any
    down: Any
    base_out: Any
    update_out: Any
    inputs: Any
    total: Any
    update: Any = None
    bias: Any = None
    up_scale: Any = None
    down_scale: Any = None


def mlp_half(
    stream: Stream, weights: MLPWeights, shard: Shard, half: HalfBlock
) -> tuple[Float[Array, "cores B D"], Float[Array, "cores B D"]]:
    """What the next update is added to, and what this half block adds, in parts to be summed.

    Args:
      stream: the residual stream.
      weights: of this device.
      shard: their sizes.
      half: how it computes.
    """
    _, batch, hidden = stream.base.shape
    cores, steps = shard.num_cores, _num_steps(shard)
    inputs = _inputs(stream, weights, shard)
    names = (*inputs, "base_out", "update_out", "inputs", "total")
    shape, dtype = (cores, batch, hidden), stream.base.dtype
    base, update = pl.pallas_call(
        functools.partial(_kernel, names=names, half=half),
        grid=(cores, steps),
        in_specs=[spec for _, spec in inputs.values()],
        out_specs=[core_spec(batch, hidden)] * 2,
        out_shape=[
            jax.ShapeDtypeStruct(shape, dtype),
            jax.ShapeDtypeStruct(shape, half.update_dtype),
        ],
        scratch_shapes=[
            pltpu.VMEM((shard.ways, batch, hidden // shard.ways), dtype),
            pltpu.VMEM((batch, hidden), jnp.float32),
        ],
        compiler_params=pltpu.CompilerParams(
            dimension_semantics=("parallel", "arbitrary"), vmem_limit_bytes=VMEM_LIMIT_BYTES
        ),
        cost_estimate=pl.CostEstimate(
            flops=4 * batch * hidden * shard.mlp_width,
            transcendentals=batch * shard.mlp_width,
            bytes_accessed=weights.up.kernel.nbytes + weights.down.kernel.nbytes,
        ),
        name="decode_mlp",
        interpret=half.interpret,
    )(*(array for array, _ in inputs.values()))
    return base, update


def _num_steps(shard: Shard) -> int:
    assert shard.mlp_columns is not None, "checked by Shard.is_tiled"
    return shard.mlp_width // shard.mlp_columns // shard.num_cores


def _inputs(stream: Stream, weights: MLPWeights, shard: Shard) -> Inputs:
    """The inputs of the kernel and their blocks: some columns of the MLP at a time."""
    columns, steps = shard.mlp_columns, _num_steps(shard)
    assert columns is not None
    _, up, up_bias, down = weights

    def block(core: Any, step: Any) -> Any:
        return core * steps + step

    of_columns = pl.BlockSpec((columns,), lambda core, step: (block(core, step),))
    inputs = stream_inputs(stream, weights.norm) | {
        "up": (up.kernel, output_columns_spec(up, columns, block)),
        "up_bias": (up_bias, of_columns),
        "down": (down.kernel, input_columns_spec(down, columns, shard.per_byte, block)),
    }
    if up.scale is not None and down.scale is not None:
        inputs["up_scale"] = (up.scale, of_columns)
        inputs["down_scale"] = (down.scale, pl.BlockSpec(down.scale.shape, lambda *_: (0,)))
    return inputs


def _kernel(*refs: Any, names: tuple[str, ...], half: HalfBlock) -> None:
    """Adds the result of some columns of the MLP; the last step of a core writes the total."""
    r = MLPRefs(**dict(zip(names, refs, strict=True)))
    step = pl.program_id(1)

    @pl.when(step == 0)
    def _() -> None:
        start_half(r, half)

    inner = columns_product(r.inputs[...], r.up)
    if r.up_scale is not None:
        inner = inner * r.up_scale[...].astype(jnp.float32)
    inner = inner + r.up_bias[...].astype(jnp.float32)
    inner = nn.gelu(inner, approximate=True).astype(r.inputs.dtype)
    add_columns_product(r.total, apart(inner, len(r.inputs)), r.down)

    @pl.when(step == pl.num_programs(1) - 1)
    def _() -> None:
        end_half(r, r.down_scale)
