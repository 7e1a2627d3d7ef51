"""How often parameters are gathered, and their gradients scattered."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AbstractMesh, AxisType, PartitionSpec

from glm_jax.model import GLM, GLMConfig
from glm_jax.parallel.collectives import gather_parameter
from glm_jax.parallel.layout import parameter_specs
from glm_jax.parallel.mesh import MESH_AXES

MESH = AbstractMesh((1, 2, 2, 1, 1), MESH_AXES, axis_types=(AxisType.Auto,) * len(MESH_AXES))
REPLICATED = PartitionSpec()
MATRICES = 4  # of a layer


def program_of(function, *arguments, specs, result) -> str:
    """What every device runs."""
    shards = jax.shard_map(
        function, mesh=MESH, in_specs=specs, out_specs=result, axis_names=set(MESH_AXES)
    )
    return str(jax.make_jaxpr(shards)(*arguments))


def test_all_axes_are_gathered_at_once_and_sums_are_scattered_over_one_after_another():
    spec = PartitionSpec(("fsdp", "fsdp_minor"))

    def gradient(shard):
        return jax.grad(lambda shard: gather_parameter(shard, spec, "bfloat16").sum())(shard)

    text = program_of(gradient, jnp.zeros((8, 4)), specs=spec, result=spec)
    assert text.count("= all_gather[") == 1
    assert text.count("= reduce_scatter[") == 2


@pytest.mark.parametrize(("remat", "times"), [("minimal", 2), ("minimal_gathered", 1)])
def test_kept_parameters_are_not_gathered_again(remat, times):
    config = GLMConfig(128, 2, 64, 4, 16, scan_layers=False, remat=remat)
    inputs = (jnp.zeros((4, 8), jnp.int32), jnp.zeros((4, 2, 8), jnp.int32), jnp.ones(4, jnp.int32))
    named = jax.eval_shape(GLM(config).init, jax.random.key(0), *inputs)["params"]
    specs = parameter_specs(named, MESH)
    params = jax.tree.map(
        lambda leaf: jnp.zeros(leaf.shape),
        jax.tree.map(lambda leaf: leaf.value, named, is_leaf=lambda leaf: hasattr(leaf, "names")),
    )
    model = GLM(config, param_specs=specs)
    batch = PartitionSpec(("fsdp", "fsdp_minor"))

    def gradient(params, *inputs):
        def loss(params):
            return model.apply({"params": params}, *inputs, method="hidden_states").sum()

        return jax.grad(loss)(params)

    text = program_of(gradient, params, *inputs, specs=(specs, batch, batch, batch), result=specs)
    tables = 3
    # The loop over the layers is a part of the text once.
    assert text.count("= all_gather[") == tables + times * MATRICES
