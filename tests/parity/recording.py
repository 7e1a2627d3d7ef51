"""A training run recorded from the original code, with our model and optimizer for it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from glm_jax.model import GLM, GLMConfig
from glm_jax.train.optimizer import OptimizerConfig
from tests.parity.golden_schedules import our_decay
from tests.parity.state_dict import read_state, to_params, to_state

# Our names of a batch's arrays, and the recorded ones.
NAMES = {
    "tokens": "text",
    "targets": "target",
    "loss_mask": "loss_mask",
    "position_ids": "position_id",
    "prefix_length": "attention_mask",
}


@dataclasses.dataclass(frozen=True)
class Recording:
    """One run of the original, and the same model and optimizer of ours.

    Attributes:
      golden: its name in the report.
      info: what `info.json` says.
      arrays: the contents of `io.npz`.
      model: the network, without dropout.
      params: its parameters before the first step.
      optimizer: the settings of the steps.
    """

    golden: str
    info: Mapping[str, Any]
    arrays: Mapping[str, np.ndarray]
    model: GLM
    params: dict[str, Any]
    optimizer: OptimizerConfig

    @property
    def accumulation_steps(self) -> int:
        """Micro-batches per step."""
        return self.info["config"].get("accum", 1)

    def batch(self, prefix: str) -> dict[str, jax.Array]:
        """The recorded batch whose arrays are named `prefix/...`."""
        arrays = {ours: self.arrays[f"{prefix}/{name}"] for ours, name in NAMES.items()}
        rows = len(arrays["tokens"])
        arrays["prefix_length"] = np.broadcast_to(arrays["prefix_length"], (rows,))
        batch = {name: jnp.asarray(values, jnp.int32) for name, values in arrays.items()}
        return batch | {"loss_mask": jnp.asarray(arrays["loss_mask"], jnp.float32)}

    def step_batch(self, step: int) -> dict[str, jax.Array]:
        """A step's micro-batches as one batch, whose strided rows they are."""
        count = self.accumulation_steps
        parts = [self.batch(f"step_batch_{step * count + part}") for part in range(count)]
        return {
            name: jnp.stack([part[name] for part in parts], axis=1).reshape(
                -1, *parts[0][name].shape[1:]
            )
            for name in parts[0]
        }

    def state_dict(self, params: Any) -> dict[str, np.ndarray]:
        """A tree shaped like the parameters, by the original's names."""
        return to_state(params, self.model.config.num_layers)


def open_recording(folder: Path, golden: str) -> Recording:
    """Reads one folder of `c_training`."""
    info = json.loads((folder / "info.json").read_text())
    config, state = info["config"], read_state(folder / "ckpt_init")
    model = GLM(
        GLMConfig(
            vocab_size=config["vocab_size"],
            num_layers=config["num_layers"],
            hidden_size=config["hidden_size"],
            num_attention_heads=config["num_attention_heads"],
            max_sequence_length=config["max_sequence_length"],
            block_position_encoding=config.get("block_position_encoding", True),
            embedding_dropout=0.0,
            hidden_dropout=0.0,
            attention_dropout=0.0,
        )
    )
    optimizer = OptimizerConfig(
        learning_rate=config["lr"],
        decay=our_decay(config["decay_style"]),
        decay_steps=config.get("lr_decay_iters") or config["train_iters"],
        warmup_fraction=config["warmup"],
        final_fraction=config["decay_ratio"],
        beta1=config["betas"][0],
        beta2=config["betas"][1],
        epsilon=config["eps"],
        weight_decay=config["weight_decay"],
        clip_norm=config["clip"],
    )
    arrays = np.load(folder / "io.npz")
    return Recording(golden, info, arrays, model, to_params(state), optimizer)
