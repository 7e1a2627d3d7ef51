"""Run by test_sharded_relative.py with eight virtual CPU devices; prints JSON.

The argument is a JSON list of the sizes of fsdp, fsdp_minor and tensor in each mesh.
"""

from __future__ import annotations

import json
import sys
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from glm_jax.model import RelativeGLM, RelativeGLMConfig
from glm_jax.parallel.batches import batch_sharding
from glm_jax.parallel.collectives import scatter_to_tensor_parallel
from glm_jax.parallel.layout import parameter_shardings, parameter_specs
from glm_jax.parallel.mesh import MeshConfig, make_mesh
from glm_jax.train.gradients import LossSum, gradient_sums, sums_over_mesh
from glm_jax.train.loss import masked_loss_sum

BATCH, LENGTH = 8, 16
MODEL = RelativeGLM(
    RelativeGLMConfig(vocab_size=128, num_layers=2, hidden_size=32, num_attention_heads=4)
)


def batch() -> dict[str, np.ndarray]:
    draw = np.random.default_rng(0)
    return {
        "tokens": draw.integers(0, 128, (BATCH, LENGTH)),
        "targets": draw.integers(0, 128, (BATCH, LENGTH)),
        "loss_mask": (draw.random((BATCH, LENGTH)) < 0.3).astype(np.float32),
        "prefix_length": draw.integers(0, LENGTH + 1, BATCH),
    }


def initial_params():
    """Boxed parameters; their biases are not zero, as they are in the beginning."""
    inputs = batch()
    boxed = MODEL.init(jax.random.key(0), inputs["tokens"], inputs["prefix_length"])["params"]
    for number, name in enumerate(("content_bias", "distance_bias")):
        values = jax.random.normal(jax.random.key(number), boxed[name].value.shape)
        boxed[name] = boxed[name].replace_boxed(values)
    return boxed


def make_loss_function(model: RelativeGLM):
    """The loss sum of one device's shard of a batch."""

    def loss_function(params, batch, _key):
        variables = {"params": params}
        inputs = (batch["tokens"], batch["prefix_length"])
        hidden = model.apply(variables, *inputs, method="hidden_states")
        rows = (hidden.reshape(-1, hidden.shape[-1]), batch["targets"].ravel())
        rows = (*rows, batch["loss_mask"].ravel())
        hidden, targets, mask = (scatter_to_tensor_parallel(values, 0) for values in rows)
        logits: Any = model.apply(variables, hidden, method="logits")
        return LossSum(masked_loss_sum(logits, targets, mask), jnp.zeros((), jnp.int32))

    return loss_function


def compare(boxed, fsdp: int, fsdp_minor: int, tensor: int) -> dict:
    """Largest differences between one device and the mesh, relative to the largest gradient."""
    params, key = nn.unbox(boxed), jax.random.key(0)
    alone = jax.jit(partial(gradient_sums, make_loss_function(MODEL)))(params, batch(), key)
    mesh = make_mesh(MeshConfig(data=-1, fsdp=fsdp, fsdp_minor=fsdp_minor, tensor=tensor))
    specs = parameter_specs(boxed, mesh)
    local_sums = partial(gradient_sums, make_loss_function(MODEL.clone(param_specs=specs)))
    sums = partial(sums_over_mesh, local_sums, mesh, specs)
    with jax.set_mesh(mesh):
        sharded = jax.device_put(params, parameter_shardings(boxed, mesh))
        found = jax.jit(sums)(sharded, jax.device_put(batch(), batch_sharding(mesh)), key)
    differences = jax.tree.map(
        lambda a, b: float(np.abs(np.asarray(a) - np.asarray(b)).max() / np.abs(b).max()),
        found.values,
        alone.values,
    )
    return {
        "loss": float(found.loss),
        "expected_loss": float(alone.loss),
        "gradients": {
            jax.tree_util.keystr(path, simple=True, separator="/"): difference
            for path, difference in jax.tree_util.tree_leaves_with_path(differences)
        },
        "kernel_shard": sharded["layers"]["attention"]["relative"]["kernel"]
        .addressable_shards[0]
        .data.shape,
    }


if __name__ == "__main__":
    boxed_params = initial_params()
    print(json.dumps([compare(boxed_params, *sizes) for sizes in json.loads(sys.argv[1])]))
