"""Run by test_layout.py in a process with eight virtual CPU devices; prints JSON.

The arguments are meshes with a vocabulary size, such as 1,4,2,128 for data=1, fsdp=4, tensor=2.
"""

from __future__ import annotations

import json
import sys
from functools import cache, partial

import flax.linen as nn
import jax
import numpy as np

from glm_jax.model import GLM, GLMConfig
from glm_jax.parallel.batches import batch_sharding
from glm_jax.parallel.layout import initialize_sharded
from glm_jax.parallel.mesh import MeshConfig, make_mesh

BATCH, LENGTH = 8, 16


@partial(jax.jit, static_argnums=0)
def loss_and_gradients(model, variables, batch):
    return jax.value_and_grad(lambda v: (model.apply(v, *batch) ** 2).mean())(variables)


@cache
def on_one_device(vocab_size: int):
    """The model, its batch, and what one device computes: parameters, loss and gradients."""
    config = GLMConfig(
        vocab_size=vocab_size,
        num_layers=2,
        hidden_size=32,
        num_attention_heads=4,
        max_sequence_length=16,
    )
    model = GLM(config)
    draw = np.random.default_rng(0)
    batch = (
        draw.integers(0, vocab_size, (BATCH, LENGTH)),
        draw.integers(0, LENGTH + 1, (BATCH, 2, LENGTH)),
        draw.integers(1, LENGTH, BATCH),
    )
    variables = nn.unbox(jax.jit(model.init)(jax.random.key(0), *batch))
    return model, batch, variables, *loss_and_gradients(model, variables, batch)


def compare(data: int, fsdp: int, tensor: int, vocab_size: int) -> dict:
    """What one device and the mesh make of the same parameters and batch."""
    model, batch, alone, expected, expected_gradients = on_one_device(vocab_size)
    mesh = make_mesh(MeshConfig(data, fsdp, tensor))
    sharded = initialize_sharded(model.init, mesh, jax.random.key(0), *batch)
    with jax.set_mesh(mesh):
        placed = jax.device_put(batch, batch_sharding(mesh))
        loss, gradients = loss_and_gradients(model, sharded, placed)
    greatest = max(float(abs(gradient).max()) for gradient in jax.tree.leaves(expected_gradients))
    return {
        "initial_difference": difference(sharded, alone),
        "loss_difference": abs(float(loss) / float(expected) - 1.0),
        "gradient_difference": difference(gradients, expected_gradients) / greatest,
        "parts": {
            jax.tree_util.keystr(path, simple=True, separator="/"): part_shape(array)
            for path, array in jax.tree_util.tree_leaves_with_path(sharded["params"])
        },
        "batch_part": part_shape(placed[0]),
    }


def difference(tree, other) -> float:
    pairs = zip(jax.tree.leaves(tree), jax.tree.leaves(other), strict=True)
    return max(float(np.abs(np.asarray(a) - np.asarray(b)).max()) for a, b in pairs)


def part_shape(array: jax.Array) -> tuple[int, ...]:
    return array.addressable_shards[0].data.shape


if __name__ == "__main__":
    print(json.dumps({case: compare(*map(int, case.split(","))) for case in sys.argv[1:]}))
