"""How arrays are laid over the mesh: one table from logical axes to mesh axes."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping

import flax.linen as nn
import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import PyTree

from glm_jax.errors import UsageError
from glm_jax.parallel.mesh import MESH_AXES

FSDP = ("fsdp", "fsdp_minor")
# What cuts the data of a step; its gradients are summed over both.
BATCH_AXES: tuple[str, ...] = ("data", *FSDP)
LENGTH_AXES: tuple[str, ...] = ("context",)
DATA_AXES: tuple[str, ...] = (*BATCH_AXES, *LENGTH_AXES)
TENSOR = "tensor"
# Logical axes that tensor parallelism divides: columns of column-parallel matrices, rows of
# row-parallel ones (Megatron-LM: Shoeybi et al., 2019, section 3).
COLUMN_PARALLEL_AXES = frozenset({"heads_out", "mlp_out"})
ROW_PARALLEL_AXES = frozenset({"heads_in", "mlp_in"})
TENSOR_PARALLEL_AXES = COLUMN_PARALLEL_AXES | ROW_PARALLEL_AXES


@dataclasses.dataclass(frozen=True)
class LayoutConfig:
    """Which mesh axes cut each axis of the parameters, the outermost first; () leaves it whole.

    A matrix that widens ([D, 3, D], [D, F]) is stored with its rows cut over fsdp and its columns
    over tensor; one that narrows ([D, D], [F, D]) with its rows cut over both. So fsdp never cuts
    the minor axis of a parameter, where TPUs pad whatever is below 128, and tensor parallelism
    needs one sum per half block. Before a layer is used its parameters are gathered over all axes
    but tensor, so any of them may serve to store parameters.

    Attributes:
      vocab: rows of the word embedding.
      position_out: columns of the position tables, whose rows nothing divides.
      hidden_in: rows of matrices that widen.
      heads_out, mlp_out: columns of matrices that widen.
      heads_in, mlp_in: rows of matrices that narrow.

    Raises:
      UsageError: an unknown mesh axis, one used twice for an array, or tensor where it can't be.
    """

    vocab: tuple[str, ...] = ("tensor", *FSDP)
    position_out: tuple[str, ...] = ("fsdp",)
    hidden_in: tuple[str, ...] = FSDP
    heads_out: tuple[str, ...] = ("tensor",)
    heads_in: tuple[str, ...] = ("tensor", *FSDP)
    mlp_out: tuple[str, ...] = ("tensor",)
    mlp_in: tuple[str, ...] = ("tensor", *FSDP)

    def __post_init__(self) -> None:
        for name, axes in self.table.items():
            unknown = [axis for axis in axes if axis not in MESH_AXES]
            if unknown or len(set(axes)) < len(axes):
                raise UsageError(
                    f"layout.{name} is {axes}; expected different ones of {', '.join(MESH_AXES)}"
                )
            if name in TENSOR_PARALLEL_AXES and axes[:1] != ("tensor",):
                raise UsageError(f"layout.{name} is {axes}; expected 'tensor' first")
        for name in ("heads_out", "mlp_out"):
            if len(self.table[name]) > 1:
                raise UsageError(f"layout.{name} is {self.table[name]}; expected ('tensor',)")
        if "tensor" in self.hidden_in:
            raise UsageError(f"layout.hidden_in is {self.hidden_in}, but can't be cut by tensor")

    @property
    def table(self) -> Mapping[str, tuple[str, ...]]:
        """Mesh axes by logical axis, of data and of parameters; others are never cut."""
        stored = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {"batch": BATCH_AXES, "length": LENGTH_AXES, **stored}


DEFAULT_LAYOUT = LayoutConfig()


def spec_of(
    axes: tuple[str | None, ...],
    shape: tuple[int, ...],
    mesh_shape: Mapping[str, int],
    layout: LayoutConfig = DEFAULT_LAYOUT,
) -> PartitionSpec:
    """Where the dimensions of a whole array are cut.

    A mesh axis that does not divide a dimension is left out there, the innermost first: it is then
    cut less, or not at all. Mesh axes of size 1 are left out too.
    """
    spec = []
    for size, axis in zip(shape, axes, strict=True):
        cut = layout.table.get(axis, ()) if axis else ()
        while size % math.prod(mesh_shape[name] for name in cut):
            cut = cut[:-1]
        spec.append(tuple(name for name in cut if mesh_shape[name] > 1) or None)
    return PartitionSpec(*spec)


def mesh_axes(spec: PartitionSpec) -> list[tuple[str, ...]]:
    """The mesh axes that shard each dimension, as tuples, the outermost axis first."""
    return [(axes,) if isinstance(axes, str) else tuple(axes or ()) for axes in spec]


def constrain(array: jax.Array, axes: tuple[str, ...]) -> jax.Array:
    """Asks the compiler to lay an activation out by the default table, under `jax.set_mesh` only.

    Does nothing inside `jax.shard_map`, where every device works on its own part.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.manual_axes:
        return array
    spec = spec_of(axes, array.shape, mesh.shape)
    return jax.lax.with_sharding_constraint(array, spec)


def parameter_specs(abstract: PyTree, mesh: Mesh, layout: LayoutConfig = DEFAULT_LAYOUT) -> PyTree:
    """Where every array of a tree is cut, from the logical names that it carries.

    Args:
      abstract: a tree from `jax.eval_shape` whose parameters still carry their names
        (`nn.LogicallyPartitioned`), such as variables, or a training state with the moments of its
        optimizer. Arrays without names are replicated.
      mesh: the mesh to lay them over.
      layout: the table.
    """

    def spec(leaf) -> PartitionSpec:
        if not isinstance(leaf, nn.LogicallyPartitioned):
            return PartitionSpec()
        return spec_of(leaf.names, leaf.value.shape, mesh.shape, layout)

    return jax.tree.map(spec, abstract, is_leaf=lambda x: isinstance(x, nn.LogicallyPartitioned))


def parameter_shardings(
    abstract: PyTree, mesh: Mesh, layout: LayoutConfig = DEFAULT_LAYOUT
) -> PyTree:
    """`parameter_specs` on the mesh: a NamedSharding in place of every array."""
    return jax.tree.map(
        lambda spec: NamedSharding(mesh, spec),
        parameter_specs(abstract, mesh, layout),
        is_leaf=lambda x: isinstance(x, PartitionSpec),
    )


def initialize_sharded(
    init: Callable[..., PyTree],
    mesh: Mesh,
    *arguments: PyTree,
    layout: LayoutConfig = DEFAULT_LAYOUT,
) -> PyTree:
    """Runs `init(*arguments)` so that every device makes only its own part of the result.

    Args:
      init: traceable function whose result carries logical names, such as `model.init`.
      mesh: the mesh to lay the result over.
      arguments: arguments of `init`, such as a random key and a batch of shapes.
      layout: the table.

    Returns:
      The result without its names, laid out by `parameter_shardings`. Its numbers do not depend on
      the mesh.
    """
    shardings = parameter_shardings(jax.eval_shape(init, *arguments), mesh, layout)
    with jax.set_mesh(mesh):
        return jax.jit(lambda *args: nn.unbox(init(*args)), out_shardings=shardings)(*arguments)


def abstract_with_shardings(shapes: PyTree, shardings: PyTree) -> PyTree:
    """jax.ShapeDtypeStruct leaves that carry where each array goes."""
    return jax.tree.map(
        lambda shape, sharding: jax.ShapeDtypeStruct(shape.shape, shape.dtype, sharding=sharding),
        shapes,
        shardings,
    )
