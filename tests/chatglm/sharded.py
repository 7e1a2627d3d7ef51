"""Prints the losses and gradient norms of two steps on one device and on meshes of eight, as JSON.

The argument is what is trained: "full", "prefix", "projection", or "int8", a prefix over integers.
"""

from __future__ import annotations

import json
import sys

import flax.linen as nn
import jax
import numpy as np

from glm_jax.finetune.model_scores import Scorer
from glm_jax.finetune.program import make_finetune_program
from glm_jax.finetune.trainable import TrainedParameters, train_all
from glm_jax.finetune.weights import divide_weights
from glm_jax.model import ChatGLMConfig, network_of
from glm_jax.model.initial import initial_params
from glm_jax.parallel.batches import batch_sharding
from glm_jax.parallel.mesh import MeshConfig, make_mesh
from glm_jax.train.optimizer import OptimizerConfig
from glm_jax.train.step import settings_on_devices

BATCH, LENGTH, PREFIX = 8, 16, 4
MESHES = {
    "fsdp": MeshConfig(data=1, fsdp=8),
    "data, fsdp, tensor": MeshConfig(data=2, fsdp=2, tensor=2),
    "tensor": MeshConfig(data=2, tensor=4),
}


def config_of(way: str, remat: str) -> ChatGLMConfig:
    return ChatGLMConfig(
        vocab_size=128,
        num_layers=2,
        hidden_size=32,
        num_attention_heads=4,
        max_sequence_length=LENGTH,
        remat=remat,
        num_prefix_tokens=0 if way == "full" else PREFIX,
        prefix_projection=way == "projection",
        hidden_dropout=0.1,
        quantization="int8" if way == "int8" else "none",
    )


def batch() -> dict[str, np.ndarray]:
    draw = np.random.default_rng(0)
    return {
        "tokens": draw.integers(0, 128, (BATCH, LENGTH)).astype(np.int32),
        "targets": draw.integers(0, 128, (BATCH, LENGTH)).astype(np.int32),
        "loss_mask": (draw.random((BATCH, LENGTH)) < 0.4).astype(np.float32),
        "position_ids": draw.integers(0, LENGTH, (BATCH, 2, LENGTH)).astype(np.int32),
        "prefix_length": draw.integers(1, LENGTH, BATCH).astype(np.int32),
        "weight": np.ones(BATCH, np.float32),
        "label": np.zeros(BATCH, np.int32),
    }


def weights_of(config: ChatGLMConfig):
    """Random parameters; integers where they are stored as such, as large as other weights.

    Larger ones saturate attention, which leaves gradients of which few digits are right.
    """
    draw = np.random.default_rng(1)

    def value(path, leaf):
        if leaf.dtype == np.int8:
            return draw.integers(-127, 128, leaf.shape).astype(np.int8)
        return 3e-4 * np.ones_like(leaf) if path[-1].key == "kernel_scale" else leaf

    initial = nn.unbox(initial_params(network_of(config), jax.random.key(2)))
    return jax.tree_util.tree_map_with_path(value, initial)


def found_on(mesh, way: str, remat: str) -> list[list[float]]:
    config = config_of(way, remat)
    is_trained = train_all if way == "full" else TrainedParameters(freeze_network=True)
    optimizer = OptimizerConfig(learning_rate=1e-2, decay_steps=10)
    scorer = Scorer(network_of(config))
    program = make_finetune_program(scorer, {}, optimizer, mesh, is_trained=is_trained)
    with jax.set_mesh(mesh):
        _, frozen = divide_weights(weights_of(config), program, is_trained, num_separate_layers=0)
        state, settings = program.initialize(1), settings_on_devices(program.settings_of(1), mesh)
        data = jax.device_put(batch(), batch_sharding(mesh))
        steps = []
        for _ in range(2):
            state, metrics = program.language_model_step(state, data, settings, frozen)
            steps.append([float(metrics["loss"]), float(metrics["gradient_norm"])])
    return steps


def main(way: str) -> None:
    one = found_on(make_mesh(MeshConfig(data=1), jax.devices()[:1]), way, "none")
    found = {
        name: found_on(make_mesh(mesh), way, "full" if name == "fsdp" else "none")
        for name, mesh in MESHES.items()
    }
    print(json.dumps({"one": one, "found": found}))


if __name__ == "__main__":
    main(sys.argv[1])
