"""How arrays are laid over the mesh: one table from logical axes to mesh axes."""

from __future__ import annotations

import math
from collections.abc import Callable

import flax.linen as nn
import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import PyTree

# A matrix that widens ([D, 3, D], [D, F]) shards its rows over fsdp and its columns over tensor;
# one that narrows ([D, D], [F, D]) shards its rows over both. So fsdp never cuts the minor axis of
# a parameter, where TPUs pad whatever is below 128, and tensor parallelism needs one reduction per
# half block. In a tuple the first axis is the outer one: gathering over fsdp leaves tensor's cut.
# The word embedding is stored cut by rows over both and used cut over tensor only ("vocab_out").
LOGICAL_AXIS_RULES: tuple[tuple[str, str | tuple[str, ...] | None], ...] = (
    ("batch", ("data", "fsdp")),
    ("length", None),
    ("hidden", None),
    ("layers", None),
    ("position", None),
    ("vocab", ("tensor", "fsdp")),
    ("vocab_out", "tensor"),
    ("hidden_in", "fsdp"),
    ("query_key_value", None),
    ("heads_out", "tensor"),
    ("heads_in", ("tensor", "fsdp")),
    ("mlp_out", "tensor"),
    ("mlp_in", ("tensor", "fsdp")),
)


def constrain(array: jax.Array, axes: tuple[str, ...]) -> jax.Array:
    """Asks the compiler to lay an activation out by the table, under `jax.set_mesh` only."""
    return nn.with_logical_constraint(array, axes, rules=LOGICAL_AXIS_RULES)


def parameter_shardings(abstract: PyTree, mesh: Mesh) -> PyTree:
    """The sharding of every array of a tree, from the logical names that it carries.

    Args:
      abstract: a tree from `jax.eval_shape` whose parameters still carry their names
        (`nn.LogicallyPartitioned`), such as variables, or a training state with the moments of its
        optimizer. Arrays without names are replicated.
      mesh: the mesh to lay them over.

    Returns:
      The same tree with a NamedSharding in place of every array. A mesh axis that does not divide
      an array's axis is left out there: that axis is then cut less, or not at all.
    """
    specs = nn.logical_to_mesh(nn.get_partition_spec(abstract), LOGICAL_AXIS_RULES)
    return jax.tree.map(
        lambda array, spec: NamedSharding(mesh, _fit(spec, array.shape, mesh)),
        nn.unbox(abstract),
        specs,
    )


def initialize_sharded(init: Callable[..., PyTree], mesh: Mesh, *arguments: PyTree) -> PyTree:
    """Runs `init(*arguments)` so that every device makes only its own part of the result.

    Args:
      init: traceable function whose result carries logical names, such as `model.init`.
      mesh: the mesh to lay the result over.
      arguments: arguments of `init`, such as a random key and a batch of shapes.

    Returns:
      The result without its names, laid out by `parameter_shardings`. Its numbers do not depend on
      the mesh.
    """
    shardings = parameter_shardings(jax.eval_shape(init, *arguments), mesh)
    with jax.set_mesh(mesh):
        return jax.jit(lambda *args: nn.unbox(init(*args)), out_shardings=shardings)(*arguments)


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """The sharding of every array of a batch: examples over data and fsdp, the rest whole."""
    return NamedSharding(mesh, PartitionSpec(dict(LOGICAL_AXIS_RULES)["batch"]))


def _fit(spec: PartitionSpec, shape: tuple[int, ...], mesh: Mesh) -> PartitionSpec:
    """Drops the innermost mesh axes of every dimension until the rest divide its size."""
    fitted = []
    for size, axes in zip(shape, tuple(spec) + (None,) * (len(shape) - len(spec)), strict=True):
        axes = (axes,) if isinstance(axes, str) else (axes or ())
        while size % math.prod(mesh.shape[axis] for axis in axes):
            axes = axes[:-1]
        fitted.append(axes or None)
    return PartitionSpec(*fitted)
