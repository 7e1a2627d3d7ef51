"""What devices send each other within a step, written out.

A training step runs under `jax.shard_map`: the same program on every device, each with its part of
the parameters, the batch and the sequence. These are the places where the parts meet. Outside
`jax.shard_map` they do nothing: there an array is whole, or the compiler sees to its parts.

Where a function sends something forward, its gradient sends the opposite back: what was gathered is
summed and scattered. Gradients of values that all tensor-parallel devices share are kept whole on
each of them (the f and g of Megatron-LM: Shoeybi et al., 2019, section 3).
"""

from __future__ import annotations

from collections.abc import Callable

import jax
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int, Shaped

from glm_jax.parallel.layout import DEFAULT_LAYOUT, LENGTH_AXES, LayoutConfig, cuts, spec_of

TENSOR = "tensor"


def parts(axis: str) -> int:
    """Devices along a mesh axis inside `jax.shard_map`, 1 outside."""
    mesh = jax.sharding.get_abstract_mesh()
    return mesh.shape[axis] if axis in mesh.manual_axes else 1


def present(axes: tuple[str, ...]) -> tuple[str, ...]:
    """Those of the mesh axes along which there is more than one part."""
    return tuple(axis for axis in axes if parts(axis) > 1)


def local_offset(axes: tuple[str, ...], size: int) -> Int[Array, ""] | int:
    """Where this device's part of an axis begins, in parts of `size`."""
    axes = present(axes)
    return jax.lax.axis_index(axes) * size if axes else 0


def whole(
    value: Shaped[Array, "..."],
    axes: tuple[str, ...],
    shape: tuple[int, ...],
    dtype: DTypeLike,
    *,
    over_tensor: bool = False,
    layout: LayoutConfig = DEFAULT_LAYOUT,
) -> Shaped[Array, "..."]:
    """A stored parameter as it is used: gathered over the mesh axes that only share storage.

    Args:
      value: this device's part.
      axes: the logical name of each dimension.
      shape: of the whole parameter.
      dtype: of the result; the cast comes first, so that less is sent.
      over_tensor: whether to gather over tensor too; then tensor-parallel devices must use the
        result for different positions, since its gradient is summed over them.
      layout: the table by which it is stored.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if not mesh.manual_axes:
        return value.astype(dtype)
    # Left to itself the compiler casts the parameters of all layers before the loop over them, and
    # holds both.
    value = jax.lax.optimization_barrier(value).astype(dtype)
    gathered = set()
    for dimension, cut in enumerate(cuts(spec_of(axes, shape, mesh.shape, layout))):
        # The innermost first, so that the parts come to lie in order.
        for axis in reversed(cut):
            if axis != TENSOR or over_tensor:
                value = jax.lax.all_gather(value, axis, axis=dimension, tiled=True)
                gathered.add(axis)
    return copy_to_tensor_parallel(value) if over_tensor and TENSOR not in gathered else value


def copy_to_tensor_parallel(value: Float[Array, "..."]) -> Float[Array, "..."]:
    """What all tensor-parallel devices share, each to make something else of it."""
    return _enter(value) if parts(TENSOR) > 1 else value


def reduce_from_tensor_parallel(value: Float[Array, "..."]) -> Float[Array, "..."]:
    """The sum of what tensor-parallel devices have made."""
    return _leave(value) if parts(TENSOR) > 1 else value


@jax.custom_vjp
def _enter(value):
    return value


_enter.defvjp(lambda value: (value, None), lambda _, gradient: (jax.lax.psum(gradient, TENSOR),))


@jax.custom_vjp
def _leave(value):
    return jax.lax.psum(value, TENSOR)


_leave.defvjp(lambda value: (_leave(value), None), lambda _, gradient: (gradient,))


def tensor_part(value: Shaped[Array, "..."], axis: int) -> Shaped[Array, "..."]:
    """This device's part of something that tensor-parallel devices share, cut along an axis."""
    return _part(axis, value) if parts(TENSOR) > 1 else value


def join_tensor_parts(value: Shaped[Array, "..."], axis: int) -> Shaped[Array, "..."]:
    """The opposite of `tensor_part`."""
    return _join(axis, value) if parts(TENSOR) > 1 else value


def _slice(axis: int, value: Array) -> Array:
    size, rest = divmod(value.shape[axis], parts(TENSOR))
    assert not rest, f"{value.shape} can't be cut by tensor"
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


_part = _with_gradient(_slice, _gather)
_join = _with_gradient(_gather, _slice)


def gather_context(value: Float[Array, "B L ..."]) -> Float[Array, "B M ..."]:
    """All positions of a sequence from those that devices have a part of each."""
    for axis in reversed(present(LENGTH_AXES)):
        value = jax.lax.all_gather(value, axis, axis=1, tiled=True)
    return value
