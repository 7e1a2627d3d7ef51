"""Run by tests in a process with eight virtual CPU devices; takes and prints JSON.

For every kind of optimizer, given by its fields in the configuration: how far parameters end up
from each other after a few updates on one device and on a mesh of eight, and the shape of one
device's shard of every array of the state.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from glm_jax.parallel.layout import initialize_sharded
from glm_jax.parallel.mesh import MeshConfig, make_mesh
from glm_jax.train.optimizer import OptimizerConfig, make_optimizer
from glm_jax.train.step import TrainState, initial_state

STEPS = 4


def initial_params(key: jax.Array) -> dict:
    """A stack of two matrices large enough to factor, and their biases, with their names."""
    return {
        "kernel": nn.LogicallyPartitioned(
            jax.random.normal(key, (2, 128, 512)), ("layers", "hidden_in", "mlp_out")
        ),
        "bias": nn.LogicallyPartitioned(jnp.zeros((2, 512)), ("layers", "mlp_out")),
    }


def train(kind: dict[str, Any], mesh_config: MeshConfig, devices: list[Any]) -> TrainState:
    """The state after some updates whose gradients are the parameters and noise."""
    optimizer = make_optimizer(
        OptimizerConfig(learning_rate=1e-2, decay_steps=100, decay="constant", **kind)
    )
    mesh = make_mesh(mesh_config, devices)

    @jax.jit
    def update(state):
        key = jax.random.fold_in(jax.random.key(1), state.step)
        gradients = jax.tree.map(lambda p: p + jax.random.normal(key, p.shape), state.params)
        updates, moved = optimizer.update(gradients, state.optimizer_state, state.params)
        return state.replace(
            step=state.step + 1,
            params=optax.apply_updates(state.params, updates),
            optimizer_state=moved,
        )

    state = initialize_sharded(
        lambda key: initial_state(initial_params(key), optimizer), mesh, jax.random.key(0)
    )
    with jax.set_mesh(mesh):
        for _ in range(STEPS):
            state = update(state)
    return state


def compare(kind: dict[str, Any]) -> dict:
    """One device against eight."""
    devices = jax.devices()
    alone = train(kind, MeshConfig(), devices[:1])
    sharded = train(kind, MeshConfig(data=1, fsdp=4, tensor=2), devices)
    differences = jax.tree.map(
        lambda a, b: float(np.abs(np.asarray(a) - np.asarray(b)).max()),
        alone.params,
        sharded.params,
    )
    return {
        "difference": float(np.max(jax.tree.leaves(differences))),
        "parts": {
            jax.tree_util.keystr(path, simple=True, separator="/"): part_shape(array)
            for path, array in jax.tree_util.tree_leaves_with_path(sharded.optimizer_state)
        },
    }


def part_shape(array: jax.Array) -> tuple[int, ...]:
    return array.addressable_shards[0].data.shape


if __name__ == "__main__":
    kinds = json.loads(sys.argv[1])
    print(json.dumps({label: compare(kind) for label, kind in kinds.items()}))
