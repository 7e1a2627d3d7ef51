"""A step of decoding, compiled for TPUs and reported on."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import PyTree

from glm_jax.compile.costs import Loops
from glm_jax.compile.predict import no_faster_than
from glm_jax.compile.report import StepReport
from glm_jax.compile.step import Work, compile_and_report
from glm_jax.compile.topology import Topology
from glm_jax.errors import UsageError
from glm_jax.generate.decode import MAX_STEPS, DecodeState, RowSettings, run_rows
from glm_jax.generate.decode_config import DecodeSize
from glm_jax.model import GLMConfig, decoding_network, decoding_params, network_of
from glm_jax.model.decode_kernels.layers import kernels_for
from glm_jax.model.flops import forward_flops_per_token
from glm_jax.model.initial import initial_params
from glm_jax.model.kv_cache import empty_cache
from glm_jax.model.paged_attention import CacheLayout, cache_layout
from glm_jax.parallel.layout import parameter_specs
from glm_jax.parallel.mesh import MeshConfig, make_mesh
from glm_jax.train.optimizer import parameter_count


class DecodeWork(Work):
    """`Work` of a forward pass for one position of every row, which sees a full cache."""

    @property
    def flops(self) -> float:
        """Operations of the model."""
        return self.rows * forward_flops_per_token(self.model, self.length)


def compile_decode_step(
    network: GLMConfig,
    size: DecodeSize,
    topology: Topology,
    name: str,
    compiler_options: Mapping[str, str | bool | int],
) -> StepReport:
    """Compiles the program of `glm-jax fill`, `chat` and `serve`, and counts one of its steps.

    Weights are in the compute dtype, or integers, and divided over all chips (tensor parallelism).
    Caches are full, and a step has its share of what the program does once in its `MAX_STEPS`.

    Args:
      network: its weights are not read.
      size: of the batch and of its cache.
      topology, name, compiler_options: as in `compile_step`.

    Raises:
      UsageError: the chips can't share the heads.
      DoesNotFitError: a chip has too little memory.
    """
    chips = len(topology.devices)
    if network.num_attention_heads % chips:
        raise UsageError(
            f"{chips} chips of {topology} can't share the {network.num_attention_heads} heads of "
            f"{name}"
        )
    mesh = make_mesh(MeshConfig(data=1, tensor=chips), topology.devices)
    model = decoding_network(
        dataclasses.replace(network, attention="xla"),
        kernels=kernels_for(topology.chip.device_kind),
    )
    params = abstract_decoding_params(model.config, mesh)
    layout = cache_layout("tpu", size.cache_length, network.num_attention_heads, chips)
    cache, *inputs = _abstract_inputs(model.config, size, layout, mesh)
    with jax.set_mesh(mesh):
        lowered = run_rows.lower(model, 1, params, cache, *inputs)
    # Parameters as the network has them: a byte of int4 holds two.
    parameters = parameter_count(abstract_decoding_params(_unquantized(model.config), mesh))
    work = DecodeWork(model.config, parameters, size.batch_size, size.cache_length, 1.0)
    loops = Loops(
        {
            f"jit({run_rows.__name__})/while": MAX_STEPS,
            # Over the slots; the branch is that of the platform.
            "attention/cond/branch_0_fun/while": size.cache_length // cache[0].slots_at_once,
            "attention/scatter": size.batch_size,  # over the rows that write into it
        },
        MAX_STEPS,
    )
    report = compile_and_report(lowered, work, mesh, topology, name, compiler_options, loops)
    report = dataclasses.replace(
        report,
        read_bytes=_bytes_per_chip((params, cache)),
        cache_bytes=_bytes_per_chip(cache),
    )
    prediction = no_faster_than(report.prediction, report.reading_seconds)
    return dataclasses.replace(report, prediction=prediction)


def _bytes_per_chip(arrays: PyTree) -> int:
    """Size of each chip's part of abstract arrays."""
    return sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(arrays)
    )


def abstract_decoding_params(config: GLMConfig, mesh: Mesh) -> PyTree:
    """Shapes, dtypes and shardings of `decoding_params`, with floats in the compute dtype.

    Args:
      config: with prefixes that layers have as parameters of their own, if any.
      mesh: with no axis but tensor.
    """
    model = network_of(config)
    boxed = jax.eval_shape(lambda key: initial_params(model, key), jax.random.key(0))
    specs = parameter_specs(boxed, mesh)
    shapes = jax.eval_shape(lambda params: decoding_params(config, params), nn.unbox(boxed))

    def abstract(keys: tuple[Any, ...], leaf: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        spec = _decoding_spec(specs, [key.key for key in keys], leaf, mesh)
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=NamedSharding(mesh, spec))

    return jax.tree_util.tree_map_with_path(abstract, shapes)


def _decoding_spec(
    specs: PyTree, path: list[str], leaf: jax.ShapeDtypeStruct, mesh: Mesh
) -> PartitionSpec:
    """The sharding of one array of `decoding_params`: as the stacked one's, its axes moved."""
    in_layers = path[0].startswith("blocks_")
    found = specs["layers"] if in_layers else specs[path[0]]
    for name in path[1:]:
        found = found[name]
    axes = list(found)
    if not in_layers:
        return PartitionSpec(*axes)
    stacked = leaf.ndim + 1
    blocked = path[-1] == "kernel" and leaf.dtype == jnp.int8
    if blocked:
        stacked -= 1  # columns became blocks and lanes
    axes = (axes + [None] * stacked)[1:stacked]
    if path[-1] == "kernel":
        axes = [*axes[1:], axes[0]] + [None] * blocked
    for axis, names in enumerate(axes):
        size = 1
        for mesh_axis in (names,) if isinstance(names, str) else names or ():
            size *= mesh.shape[mesh_axis]
        if leaf.shape[axis] % size:
            axes[axis] = None
    return PartitionSpec(*axes)


def _abstract_inputs(
    config: GLMConfig, size: DecodeSize, layout: CacheLayout, mesh: Mesh
) -> tuple[Any, ...]:
    """The arguments of `run_rows` after the parameters."""
    replicated = NamedSharding(mesh, PartitionSpec())

    def array(dtype: Any, *shape: int) -> Any:
        return jax.ShapeDtypeStruct(shape, dtype, sharding=replicated)

    rows, slots = size.batch_size, size.cache_length
    floats, ints = array(jnp.float32, rows), array(jnp.int32, rows)
    settings = RowSettings(
        floats, ints, floats, ints, ints, ints, array(bool, rows), array(jnp.uint32, rows, 2)
    )
    masks = array(jnp.int32, rows, slots)
    state = DecodeState(masks, ints, masks, ints, ints, ints, ints, ints, settings)
    heads = NamedSharding(mesh, PartitionSpec(None, None, "tensor"))
    cache = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=heads),
        jax.eval_shape(lambda: empty_cache(config, rows, slots, layout)),
    )
    number = array(jnp.int32)
    return cache, state, number, array(jnp.int32, 1), number, number


def _unquantized(config: GLMConfig) -> GLMConfig:
    return dataclasses.replace(config, quantization="none")
