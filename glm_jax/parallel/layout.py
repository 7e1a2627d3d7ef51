"""How arrays are sharded over the mesh: one table from logical axes to mesh axes."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from functools import partial

import flax.linen as nn
import jax
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec
from jaxtyping import PyTree

from glm_jax.errors import UsageError
from glm_jax.parallel.mesh import MESH_AXES, run_once_options

FSDP = ("fsdp", "fsdp_minor")
# Mesh axes that shard the data of a step; gradients are summed over all of them.
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
    """Which mesh axes shard each axis of the parameters, the outermost first; () replicates it.

    A column-parallel matrix ([D, 3, D], [D, F]) has its rows sharded over fsdp and its columns over
    tensor; a row-parallel one ([D, D], [F, D]) has its rows sharded over both. So fsdp never shards
    the minor axis of a matrix, where TPUs pad sizes below 128, and tensor parallelism needs one
    all-reduce per half block. Parameters are gathered over all axes but tensor before a layer uses
    them, so any axis may shard their storage.

    Attributes:
      vocab: rows of the word embedding.
      position_out: columns of the position tables, whose rows nothing divides.
      hidden_in: rows of column-parallel matrices.
      heads_out, mlp_out: columns of column-parallel matrices.
      heads_in, mlp_in: rows of row-parallel matrices.

    Raises:
      UsageError: an unknown mesh axis, one used twice for an array, or tensor where it is not
        supported.
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
                    f"layout.{name} is {axes}; expected distinct axes of {', '.join(MESH_AXES)}"
                )
            if name in TENSOR_PARALLEL_AXES and axes[:1] != ("tensor",):
                raise UsageError(f"layout.{name} is {axes}; expected 'tensor' first")
        for name in ("heads_out", "mlp_out"):
            if len(self.table[name]) > 1:
                raise UsageError(f"layout.{name} is {self.table[name]}; expected ('tensor',)")
        if "tensor" in self.hidden_in:
            raise UsageError(f"layout.hidden_in is {self.hidden_in}; expected no 'tensor'")

    @property
    def table(self) -> Mapping[str, tuple[str, ...]]:
        """Mesh axes by logical axis, of data and of parameters; others are replicated."""
        stored = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        others = {
            "batch": BATCH_AXES,
            "length": LENGTH_AXES,
            "vocab_out": (TENSOR,),
            "logits_batch": (*BATCH_AXES, TENSOR),
        }
        return {**others, **stored}


DEFAULT_LAYOUT = LayoutConfig()


def spec_of(
    axes: tuple[str | None, ...],
    shape: tuple[int, ...],
    mesh_shape: Mapping[str, int],
    layout: LayoutConfig = DEFAULT_LAYOUT,
) -> PartitionSpec:
    """The sharding of an array with these logical axes and this global shape.

    Mesh axes that do not divide a dimension are dropped there, the innermost first, as are mesh
    axes of size 1.
    """
    spec = []
    for size, axis in zip(shape, axes, strict=True):
        names = layout.table.get(axis, ()) if axis else ()
        while size % math.prod(mesh_shape[name] for name in names):
            names = names[:-1]
        spec.append(tuple(name for name in names if mesh_shape[name] > 1) or None)
    return PartitionSpec(*spec)


def mesh_axes(spec: PartitionSpec) -> list[tuple[str, ...]]:
    """The mesh axes that shard each dimension, as tuples, the outermost axis first."""
    return [(axes,) if isinstance(axes, str) else tuple(axes or ()) for axes in spec]


def constrain(array: jax.Array, axes: tuple[str, ...]) -> jax.Array:
    """Constrains the sharding of an activation by the default table, under `jax.set_mesh` only.

    Does nothing inside `jax.shard_map`, where every device works on its own shard.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.manual_axes:
        return array
    spec = spec_of(axes, array.shape, mesh.shape)
    return jax.lax.with_sharding_constraint(array, spec)


def replicate(tree: PyTree) -> PyTree:
    """Constrains arrays to be on every device of the mesh, under `jax.set_mesh` only."""
    if jax.sharding.get_abstract_mesh().empty:
        return tree
    return jax.lax.with_sharding_constraint(tree, PartitionSpec())


def parameter_specs(
    abstract: PyTree, mesh: Mesh | AbstractMesh, layout: LayoutConfig = DEFAULT_LAYOUT
) -> PyTree:
    """The sharding of every array of a tree, from the logical names that it carries.

    Args:
      abstract: a tree from `jax.eval_shape` whose parameters still carry their names
        (`nn.LogicallyPartitioned`), such as variables, or a training state with the moments of its
        optimizer. Arrays without names are replicated.
      mesh: the mesh to shard them over.
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
    """Runs `init(*arguments)` so that every device computes only its own shard of the result.

    Args:
      init: traceable function whose result carries logical names, such as `model.init`.
      mesh: the mesh to shard the result over.
      arguments: arguments of `init`, such as a random key and a batch of shapes.
      layout: the table.

    Returns:
      The result without its names, sharded by `parameter_shardings`. Its numbers do not depend on
      the mesh.
    """
    return compile_initializer(init, mesh, *arguments, layout=layout)()


def shapes_over(mesh: Mesh, init: Callable[..., PyTree], *arguments: PyTree) -> PyTree:
    """Shapes and dtypes of `init(*arguments)`, traced as `compile_initializer` does.

    JAX keeps traces for each mesh: without it, what both trace would be traced twice.
    """
    with jax.set_mesh(mesh):
        return jax.eval_shape(init, *arguments)


def compile_initializer(
    init: Callable[..., PyTree],
    mesh: Mesh,
    *arguments: PyTree,
    layout: LayoutConfig = DEFAULT_LAYOUT,
) -> Callable[[], PyTree]:
    """What `initialize_sharded` runs, compiled, with its arguments bound to it."""
    shardings = parameter_shardings(shapes_over(mesh, init, *arguments), mesh, layout)
    with jax.set_mesh(mesh):
        jitted = jax.jit(lambda *args: nn.unbox(init(*args)), out_shardings=shardings)
        compiled = jitted.lower(*arguments).compile(run_once_options(mesh))
    return partial(compiled, *arguments)


def abstract_with_shardings(shapes: PyTree, shardings: PyTree) -> PyTree:
    """jax.ShapeDtypeStruct leaves that carry the sharding of each array."""
    return jax.tree.map(
        lambda shape, sharding: jax.ShapeDtypeStruct(shape.shape, shape.dtype, sharding=sharding),
        shapes,
        shardings,
    )
