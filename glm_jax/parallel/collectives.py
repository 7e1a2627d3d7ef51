"""The collective operations of a step, written out.

A training step runs under `jax.shard_map`: the same program on every device, each with its shard of
the parameters, the batch and the sequence. These functions exchange data between devices. Outside
`jax.shard_map` they do nothing: there an array is global, and the compiler partitions it.

The gradient of every function is the transposed exchange: what was gathered is reduced and
scattered. Gradients of values that all tensor-parallel devices share are complete on each of them
(the f and g of Megatron-LM: Shoeybi et al., 2019, section 3).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import jax
from jax.sharding import PartitionSpec
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int, Shaped

from glm_jax.parallel.layout import LENGTH_AXES, TENSOR, TENSOR_PARALLEL_AXES, mesh_axes


def axis_size(axis: str) -> int:
    """Devices along a mesh axis inside `jax.shard_map`, 1 outside."""
    mesh = jax.sharding.get_abstract_mesh()
    return mesh.shape[axis] if axis in mesh.manual_axes else 1


def active_axes(axes: tuple[str, ...]) -> tuple[str, ...]:
    """Those of the mesh axes with more than one device."""
    return tuple(axis for axis in axes if axis_size(axis) > 1)


def local_offset(axes: tuple[str, ...], size: int) -> Int[Array, ""] | int:
    """Global index of the first element of this device's shard, for shards of `size` elements."""
    axes = active_axes(axes)
    return jax.lax.axis_index(axes) * size if axes else 0


def local_size(logical_axis: str, size: int) -> int:
    """Size on one device of a dimension of a layer's parameter or activation.

    Args:
      logical_axis: name of the dimension; tensor parallelism divides those of
        `TENSOR_PARALLEL_AXES`.
      size: over all devices.
    """
    return size // axis_size(TENSOR) if logical_axis in TENSOR_PARALLEL_AXES else size


def gather_parameter(
    value: Shaped[Array, "..."],
    spec: PartitionSpec,
    dtype: DTypeLike,
    *,
    over_tensor: bool = False,
) -> Shaped[Array, "..."]:
    """A parameter as layers use it, from this device's shard of it.

    Args:
      value: this device's shard.
      spec: the mesh axes that shard each dimension; it is gathered over all of them but tensor.
      dtype: of a gathered parameter; the cast comes first, so that less is sent. What needs no
        gathering is not cast.
      over_tensor: whether to gather over tensor too; then tensor-parallel devices must use the
        result for different positions, since its gradient is summed over them.
    """
    # Without the barrier the compiler casts the parameters of all layers before the loop over
    # them, and holds both.
    value = jax.lax.optimization_barrier(value)
    gathered_over = [
        (dimension, tuple(axis for axis in axes if over_tensor or axis != TENSOR))
        for dimension, axes in enumerate(mesh_axes(spec))
    ]
    gathered_over = [(dimension, axes) for dimension, axes in gathered_over if axes]
    if gathered_over or over_tensor:
        value = value.astype(dtype)
    for where in gathered_over:
        value = _gather_shards(where, value)
    if over_tensor and not any(TENSOR in axes for _, axes in gathered_over):
        value = copy_to_tensor_parallel(value)
    return value


def copy_to_tensor_parallel(value: Float[Array, "..."]) -> Float[Array, "..."]:
    """Input of a column-parallel layer: the value itself; its gradient is summed over tensor."""
    return _copy(value) if axis_size(TENSOR) > 1 else value


def reduce_from_tensor_parallel(value: Float[Array, "..."]) -> Float[Array, "..."]:
    """Output of a row-parallel layer: the sum over tensor; its gradient is passed on as it is."""
    return _reduce(value) if axis_size(TENSOR) > 1 else value


@jax.custom_vjp
def _copy(value):
    return value


_copy.defvjp(lambda value: (value, None), lambda _, gradient: (jax.lax.psum(gradient, TENSOR),))


@jax.custom_vjp
def _reduce(value):
    return jax.lax.psum(value, TENSOR)


_reduce.defvjp(lambda value: (_reduce(value), None), lambda _, gradient: (gradient,))


def scatter_to_tensor_parallel(value: Shaped[Array, "..."], axis: int) -> Shaped[Array, "..."]:
    """This device's slice, along an axis, of a value that tensor-parallel devices share."""
    return _scatter_slice(axis, value) if axis_size(TENSOR) > 1 else value


def gather_from_tensor_parallel(value: Shaped[Array, "..."], axis: int) -> Shaped[Array, "..."]:
    """The inverse of `scatter_to_tensor_parallel`."""
    return _gather_slices(axis, value) if axis_size(TENSOR) > 1 else value


def _slice(axis: int, value: Array) -> Array:
    size, rest = divmod(value.shape[axis], axis_size(TENSOR))
    assert not rest, f"tensor does not divide axis {axis} of {value.shape}"
    return jax.lax.dynamic_slice_in_dim(value, jax.lax.axis_index(TENSOR) * size, size, axis)


def _gather(axis: int, value: Array) -> Array:
    return jax.lax.all_gather(value, TENSOR, axis=axis, tiled=True)


def _gather_over(where: tuple[int, tuple[str, ...]], value: Array) -> Array:
    """A dimension gathered over mesh axes, the outermost first, in one exchange.

    On a torus it keeps the links of all its dimensions busy, where a gather over one axis after
    another keeps those of one busy at a time.
    """
    dimension, axes = where
    return jax.lax.all_gather(value, axes, axis=dimension, tiled=True)


def _scatter_sum_over(where: tuple[int, tuple[str, ...]], value: Array) -> Array:
    """A value summed over mesh axes, of which each device gets its shard.

    The compiler scatters a sum over one axis, and sums in full over several.
    """
    dimension, axes = where
    for axis in axes:
        value = jax.lax.psum_scatter(value, axis, scatter_dimension=dimension, tiled=True)
    return value


Where = TypeVar("Where")


def _with_gradient(
    forward: Callable[[Where, Array], Array], backward: Callable[[Where, Array], Array]
) -> Callable[[Where, Array], Array]:
    """`forward` along some axes, with `backward` along the same axes as its gradient."""
    function = jax.custom_vjp(forward, nondiff_argnums=(0,))
    function.defvjp(
        lambda where, value: (forward(where, value), None),
        lambda where, _, gradient: (backward(where, gradient),),
    )
    return function


_scatter_slice = _with_gradient(_slice, _gather)
_gather_slices = _with_gradient(_gather, _slice)
_gather_shards = _with_gradient(_gather_over, _scatter_sum_over)


def gather_context(value: Float[Array, "B L ..."]) -> Float[Array, "B M ..."]:
    """All positions of a sequence, from the positions of each device along the context axis."""
    for axis in reversed(active_axes(LENGTH_AXES)):
        value = jax.lax.all_gather(value, axis, axis=1, tiled=True)
    return value
