"""What is recorded with a run's checkpoints, and whether a run can resume from one."""

from __future__ import annotations

import dataclasses
from typing import Any

from jax.sharding import Mesh
from jaxtyping import PyTree

from glm_jax.convert.load import load
from glm_jax.errors import UsageError
from glm_jax.model import GLMConfig
from glm_jax.tokenizer import Tokenizer
from glm_jax.train.config import RunConfig
from glm_jax.train.optimizer import OptimizerConfig

# A checkpoint fits a model if these agree; the rest (dropout, dtype, remat) may change.
SHAPE_FIELDS = (
    "vocab_size",
    "num_layers",
    "hidden_size",
    "num_attention_heads",
    "max_sequence_length",
    "block_position_encoding",
)


def run_record(config: RunConfig, tokenizer: Tokenizer) -> dict[str, Any]:
    """What is recorded with every checkpoint."""
    return {
        "configuration": dataclasses.asdict(config),
        "tokenizer_fingerprint": tokenizer.fingerprint,
        "data_seed": config.data.seed,
    }


def check_same_run(
    record: dict[str, Any], model: GLMConfig, optimizer: OptimizerConfig, fingerprint: str
) -> None:
    """Makes sure that a run can resume from a checkpoint.

    Raises:
      UsageError: the model has other dimensions, the optimizer is another or has other moments, or
        the store has another tokenizer.
    """
    if "tokenizer_fingerprint" not in record:
        raise UsageError(
            f"the checkpoint of step {record['step']} in the run's folder was converted, not "
            "trained here, and a run can't resume from it; give the run a folder of its own"
        )
    saved = record["configuration"]
    wanted = {f"model.{name}": getattr(model, name) for name in SHAPE_FIELDS}
    # One-dimensional positions came later than the first checkpoints.
    found = {"model.block_position_encoding": True} | {
        f"model.{name}": value for name, value in saved["model"].items()
    }
    # These too came later, and their defaults are what there was before.
    wanted["optimizer.name"] = optimizer.name
    found["optimizer.name"] = saved["optimizer"].get("name", "adamw")
    saved_moments = saved["optimizer"].get("moments", "float32")
    if "factored" in (optimizer.moments, saved_moments):
        wanted["optimizer.moments"], found["optimizer.moments"] = optimizer.moments, saved_moments
    for name, value in wanted.items():
        if found.get(name) != value:
            raise UsageError(
                f"the run's checkpoint of step {record['step']} has {name} = {found.get(name)}, "
                f"but the configuration says {value}"
            )
    if record["tokenizer_fingerprint"] != fingerprint:
        raise UsageError(
            f"the run's checkpoint of step {record['step']} was trained with the tokenizer "
            f"{record['tokenizer_fingerprint'][:12]}, but the store was built with "
            f"{fingerprint[:12]}"
        )


def initial_weights(path: str, model: GLMConfig, mesh: Mesh) -> PyTree:
    """The parameters of another checkpoint, for a run to start from.

    Raises:
      UsageError: no checkpoint there, or one of other dimensions.
    """
    other, params = load(path, num_attention_heads=model.num_attention_heads, mesh=mesh)
    for name in SHAPE_FIELDS:
        found = getattr(other.config, name, None)
        if found != getattr(model, name):
            raise UsageError(
                f"train.initial_weights {path} has {name} = {found}, but the configuration says "
                f"model.{name} = {getattr(model, name)}"
            )
    return params
