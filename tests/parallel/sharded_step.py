"""Run by test_sharded_step.py in a process with eight virtual CPU devices; prints JSON."""

from __future__ import annotations

import dataclasses
import json
import re
import sys

import jax
import numpy as np

from glm_jax.model import GLMConfig
from glm_jax.parallel.batches import batch_sharding
from glm_jax.parallel.layout import LayoutConfig
from glm_jax.parallel.mesh import MeshConfig, make_mesh
from glm_jax.train.optimizer import OptimizerConfig
from glm_jax.train.program import make_program
from glm_jax.train.step import settings_on_devices

BATCH, LENGTH, STEPS = 16, 16, 4
OPTIMIZER = OptimizerConfig(learning_rate=1e-2, decay_steps=20, warmup_fraction=0.0)
CONFIG = GLMConfig(
    vocab_size=128,
    num_layers=2,
    hidden_size=32,
    num_attention_heads=4,
    max_sequence_length=LENGTH,
    embedding_dropout=0.1,
    hidden_dropout=0.1,
    attention_dropout=0.1,
)


def batch(target_share: float) -> dict[str, np.ndarray]:
    draw = np.random.default_rng(0)
    return {
        "tokens": draw.integers(0, 128, (BATCH, LENGTH)),
        "targets": draw.integers(0, 128, (BATCH, LENGTH)),
        "loss_mask": (draw.random((BATCH, LENGTH)) < target_share).astype(np.float32),
        "position_ids": draw.integers(0, LENGTH, (BATCH, 2, LENGTH)),
        "prefix_length": draw.integers(0, LENGTH + 1, BATCH),
        "objective": draw.integers(0, 3, BATCH),
    }


def run(case: dict) -> dict:
    """The losses of some steps and of a last evaluation, and what the step's program contains."""
    mesh_config = MeshConfig(**case.get("mesh", {}))
    num_devices = case.get("devices", 8)
    mesh = make_mesh(mesh_config, jax.devices()[:num_devices])
    layout = LayoutConfig(**{name: tuple(axes) for name, axes in case.get("layout", {}).items()})
    program = make_program(
        dataclasses.replace(CONFIG, **case.get("model", {})),
        dataclasses.replace(OPTIMIZER, **case.get("optimizer", {})),
        mesh,
        seed=0,
        layout=layout,
        **case.get("step", {}),
    )
    with jax.set_mesh(mesh):
        state = program.initialize()
        data = jax.device_put(batch(case.get("target_share", 0.3)), batch_sharding(mesh))
        settings = settings_on_devices(program.settings, mesh)
        compiled = program.train_step.lower(state, data, settings).compile()
        records = []
        for _ in range(STEPS):
            state, metrics = compiled(state, data, settings)
            records.append({name: float(value) for name, value in metrics.items()})
        sums = program.evaluation_step(state.params, data)
    return {
        "losses": [record["loss"] for record in records],
        "norms": [record["gradient_norm"] for record in records],
        "overflow": sum(record["target_overflow"] for record in records),
        "evaluation": [float(values.sum()) for _, values in sorted(sums.items())],
        "collectives": sorted(
            set(re.findall(r" (all-\w+|reduce-scatter)\(", compiled.as_text() or ""))
        ),
        "parts": {
            jax.tree_util.keystr(path, simple=True, separator="/"): array.addressable_shards[
                0
            ].data.shape
            for path, array in jax.tree_util.tree_leaves_with_path(state.params)
        },
    }


if __name__ == "__main__":
    print(json.dumps([run(case) for case in json.loads(sys.argv[1])]))
