"""A step of decoding from the embeddings to the logits, on the devices that share the heads."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental.pallas import tpu as pltpu
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float, PyTree

from glm_jax.model.config import GLMConfig
from glm_jax.model.decode_kernels.attention_half import AttentionWeights, Slots, attention_half
from glm_jax.model.decode_kernels.logits import logits, side_by_side
from glm_jax.model.decode_kernels.matrices import Matrix
from glm_jax.model.decode_kernels.mlp_half import MLPWeights, mlp_half
from glm_jax.model.decode_kernels.stream import HalfBlock, Norm, Stream
from glm_jax.model.decode_kernels.tiling import Shard
from glm_jax.model.kv_cache import Cache
from glm_jax.parallel.layout import BATCH_AXES, LENGTH_AXES, TENSOR, spec_of


@dataclasses.dataclass(frozen=True)
class DecodeKernels:
    """That a step of decoding uses the kernels, and how.

    Attributes:
      num_cores: of a device.
      interpret: whether Pallas emulates the kernels instead of compiling them for a TPU.
    """

    num_cores: int
    interpret: bool = False

    def shard(self, config: GLMConfig, mesh_shape: Mapping[str, int]) -> Shard | None:
        """What one device of a mesh has of a layer; None where the kernels don't support that.

        Args:
          config: of the network.
          mesh_shape: sizes of the mesh's axes; empty without a mesh.
        """
        devices = mesh_shape.get(TENSOR, 1)
        others = (*BATCH_AXES[1:], *LENGTH_AXES)
        divided = not any(
            size % devices for size in (config.num_attention_heads, config.mlp_size)
        ) and all(mesh_shape.get(axis, 1) == 1 for axis in others)
        number_bytes = jnp.dtype(config.compute_dtype).itemsize
        weight_bits = {"int8": 8, "int4": 4}.get(config.quantization, 8 * number_bytes)
        shard = Shard(
            config.hidden_size,
            config.hidden_size // devices,
            config.mlp_size // devices,
            config.head_size,
            weight_bits,
            number_bytes,
            self.num_cores,
        )
        return shard if divided and shard.is_tiled else None


# Two cores that appear as one device.
_TWO_CORES = ("TPU v4", "TPU v5")


def kernels_for(device_kind: str) -> DecodeKernels | None:
    """The kernels for devices of a kind, such as "TPU v5 lite"; None where there are none."""
    if not device_kind.startswith("TPU"):
        return None
    return DecodeKernels(2 if device_kind in _TWO_CORES else 1)


class Network(NamedTuple):
    """The parameters that a step uses, but for the embedding of its tokens.

    Attributes:
      layers: of each `Block`, as `by_layer` gives them.
      final_norm: "scale" and "bias" of the last LayerNorm.
      table: word embeddings in the compute dtype.
    """

    layers: Sequence[PyTree]
    final_norm: Mapping[str, Float[Array, "D"]]
    table: Float[Array, "V D"]


def run_step(
    hidden: Float[Array, "B D"],
    network: Network,
    cache: Cache,
    slots: Slots,
    config: GLMConfig,
    kernels: DecodeKernels,
    residual_scale: float | None,
) -> tuple[Float[Array, "B V"], Cache]:
    """Logits of one new position of every example, and the updated cache.

    Args:
      hidden: the embedded tokens, in the compute dtype.
      network: its parameters.
      cache: in the layout for TPUs.
      slots: of the new positions.
      config: of the network.
      kernels: which `DecodeKernels.shard` has found to support it.
      residual_scale: see `HalfBlock`.
    """
    mesh = jax.sharding.get_abstract_mesh()
    shard = kernels.shard(config, mesh.shape)
    assert shard is not None, "checked by the caller"
    layers = [_weights(layer, config.compute_dtype) for layer in network.layers]
    final_norm = Norm(network.final_norm["scale"], network.final_norm["bias"])
    # What devices exchange is in the compute dtype, as in training.
    update_dtype = jnp.float32 if mesh.empty else hidden.dtype
    half = HalfBlock(config.layernorm_epsilon, residual_scale, update_dtype, kernels.interpret)
    run = partial(_run, shard=shard, half=half)
    inputs = (hidden, layers, final_norm, network.table, cache, slots)
    if mesh.empty:
        return run(*inputs)
    (rows,) = spec_of(("batch",), hidden.shape[:1], mesh.shape)
    (words,) = spec_of(("vocab_out",), network.table.shape[:1], mesh.shape)
    (logits_rows,) = spec_of(("logits_batch",), hidden.shape[:1], mesh.shape)
    by_row: Any = PartitionSpec(rows)
    of_cache = PartitionSpec(None, rows, TENSOR)
    return jax.shard_map(
        partial(
            run,
            tensor_axis=TENSOR,
            exchange=_exchange(words, logits_rows, interpret=kernels.interpret),
        ),
        in_specs=(
            by_row,
            [_WEIGHT_SPECS] * len(layers),
            Norm(_ALL, _ALL),
            PartitionSpec(words),
            of_cache,
            Slots(by_row, by_row, _ALL, by_row),
        ),
        out_specs=(PartitionSpec(logits_rows), of_cache),
        check_vma=False,
    )(*inputs)


# Weights of one layer: attention and its bias, MLP and its bias.
_Layer = tuple[AttentionWeights, Float[Array, "D"], MLPWeights, Float[Array, "D"]]

# In the tuples below, shardings are where arrays would be.
_ALL: Any = PartitionSpec()
_ROWS: Any = PartitionSpec(TENSOR)
_COLUMNS: Any = PartitionSpec(None, TENSOR)
# The second axis has the columns of the input, and of the projection also those of the result.
_NORM = Norm(_ALL, _ALL)
_WEIGHT_SPECS: Any = (
    AttentionWeights(_NORM, Matrix(_COLUMNS, _COLUMNS), _COLUMNS, Matrix(_COLUMNS, _ALL)),
    _ALL,
    MLPWeights(_NORM, Matrix(_ROWS, _ROWS), _ROWS, Matrix(_COLUMNS, _ALL)),
    _ALL,
)


def _weights(layer: PyTree, dtype: str) -> _Layer:
    """The parameters of one layer, floating-point matrices and biases in the compute dtype."""
    attention, mlp = layer["attention"], layer["mlp"]
    attention_norm, mlp_norm = (
        Norm(layer[f"{part}_layernorm"]["scale"], layer[f"{part}_layernorm"]["bias"])
        for part in ("attention", "mlp")
    )

    def matrix(linear: Mapping[str, Array]) -> Matrix:
        kernel = linear["kernel"]
        if kernel.dtype == jnp.int8:
            return Matrix(kernel, linear["kernel_scale"])
        return Matrix(kernel.astype(dtype))

    def bias(linear: Mapping[str, Array]) -> Array:
        return linear["bias"].astype(dtype)

    projection, output = attention["query_key_value"], attention["output"]
    up, down = mlp["up"], mlp["down"]
    return (
        AttentionWeights(attention_norm, matrix(projection), bias(projection), matrix(output)),
        bias(output),
        MLPWeights(mlp_norm, matrix(up), bias(up), matrix(down)),
        bias(down),
    )


def _run(
    hidden: Float[Array, "B D"],
    layers: Sequence[_Layer],
    final_norm: Norm,
    table: Float[Array, "V D"],
    cache: Cache,
    slots: Slots,
    *,
    shard: Shard,
    half: HalfBlock,
    tensor_axis: str | None = None,
    exchange: Callable[..., Array] = lambda logits: logits,
) -> tuple[Float[Array, "B V"], Cache]:
    """`run_step` on one device."""

    def summed(update: Float[Array, "cores B D"]) -> Float[Array, "cores B D"]:
        return update if tensor_axis is None else lax.psum(update, tensor_axis)

    if not half.interpret:
        layers, final_norm, table, cache = _in_hbm((layers, final_norm, table, cache))
    stream, new_cache = Stream(hidden[None]), []
    for (attention, attention_bias, mlp, mlp_bias), layer_cache in zip(layers, cache, strict=True):
        base, update, layer_cache = attention_half(
            stream, attention, layer_cache, slots, shard, half
        )
        stream = Stream(base, summed(update), attention_bias)
        base, update = mlp_half(stream, mlp, shard, half)
        stream = Stream(base, summed(update), mlp_bias)
        new_cache.append(layer_cache)
    found = logits(stream, final_norm, table, half)
    return exchange(found), tuple(new_cache)


def _in_hbm(arrays: PyTree) -> PyTree:
    """Inputs of kernels that are kept in HBM until a kernel reads them.

    Kernels read them in blocks, the next one ahead. Without this constraint the compiler reads the
    vectors ahead, too, for which it needs a tenth of a short cache in HBM, and it copies a cache
    that is small enough to VMEM and back.
    """
    constrain = partial(pltpu.with_memory_space_constraint, memory_space=pltpu.HBM)
    return jax.tree.map(constrain, arrays)


def _exchange(
    words: tuple[str, ...] | None, rows: tuple[str, ...] | None, *, interpret: bool
) -> Callable[[Float[Array, "B #V"]], Float[Array, "#B V"]]:
    """What makes logits of all words, of a device's rows, from those of its words.

    Args:
      words: axes of the mesh that divide the words.
      rows: axes that divide the rows of the result.
      interpret: see `DecodeKernels`.
    """

    def exchange(logits: Float[Array, "B #V"]) -> Float[Array, "#B V"]:
        if not words:
            return logits
        if TENSOR not in (rows or ()):
            parts = lax.all_gather(logits, TENSOR)
        else:
            size = lax.axis_size(TENSOR)
            by_device = logits.reshape(size, -1, logits.shape[1])
            parts = lax.all_to_all(by_device, TENSOR, split_axis=0, concat_axis=0)
        return side_by_side(parts, interpret=interpret)

    return exchange
