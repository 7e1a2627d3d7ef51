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
    # The innermost axis first, so that the shards are concatenated in order.
    sharded_by = [(dim, axis) for dim, axes in enumerate(mesh_axes(spec)) for axis in axes[::-1]]
    gathered_over = [(dim, axis) for dim, axis in sharded_by if over_tensor or axis != TENSOR]
    if gathered_over or over_tensor:
        value = value.astype(dtype)
    for dimension, axis in gathered_over:
        value = jax.lax.all_gather(value, axis, axis=dimension, tiled=True)
    if over_tensor and TENSOR not in [axis for _, axis in gathered_over]:
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


def _with_gradient(
    forward: Callable[[int, Array], Array], backward: Callable[[int, Array], Array]
) -> Callable[[int, Array], Array]:
    """`forward` along an axis, with `backward` along the same axis as its gradient."""
    function = jax.custom_vjp(forward, nondiff_argnums=(0,))
    function.defvjp(
        lambda axis, value: (forward(axis, value), None),
        lambda axis, _, gradient: (backward(axis, gradient),),
    )
    return function


_scatter_slice = _with_gradient(_slice, _gather)
_gather_slices = _with_gradient(_gather, _slice)


def gather_context(value: Float[Array, "B L ..."]) -> Float[Array, "B M ..."]:
    """All positions of a sequence, from the positions of each device along the context axis."""
    for axis in reversed(active_axes(LENGTH_AXES)):
        value = jax.lax.all_gather(value, axis, axis=1, tiled=True)
    return value
