"""What a trial is expected to take: parameters, floating-point operations, memory."""

from __future__ import annotations

import dataclasses

from glm_jax.model.config import GLMConfig
from glm_jax.model.flops import training_flops_per_token
from glm_jax.sweeps.run_kind import AnyConfig
from glm_jax.train.config import RunConfig
from glm_jax.train.optimizer import OptimizerConfig

# Bytes of optimizer state for each parameter.
MOMENT_BYTES = {"float32": 8, "bfloat16": 4, "factored": 2}
STATE_BYTES = {"adafactor": 0, "lion": 4, "muon": 4, "sgd": 4}
PARAMETER_BYTES = 4


@dataclasses.dataclass(frozen=True)
class Cost:
    """What a trial takes, as far as its configuration says.

    Attributes:
      num_parameters: of the model.
      flops: of all its training steps, evaluations excluded.
      memory_bytes: of parameters, gradients and optimizer state over all devices; activations come
        on top.
    """

    num_parameters: int
    flops: float
    memory_bytes: int


def cost_of(config: AnyConfig) -> Cost | None:
    """What a pretraining run takes; None for finetuning, whose model is that of a checkpoint."""
    if not isinstance(config, RunConfig):
        return None
    parameters = num_parameters(config.model)
    data = config.data
    per_step = flops_per_step(
        config.model, data.sequence_length, data.batch_size, config.train.target_fraction
    )
    state = 2 * PARAMETER_BYTES + _optimizer_bytes(config.optimizer)
    return Cost(parameters, per_step * config.train.num_steps, parameters * state)


def flops_per_step(
    model: GLMConfig, sequence_length: int, batch_size: int, target_fraction: float
) -> float:
    """Operations of a step of training; arguments as in the run's configuration."""
    per_token = training_flops_per_token(model, sequence_length, target_fraction)
    return per_token * sequence_length * batch_size


def num_parameters(model: GLMConfig) -> int:
    """Numbers in the parameters of a model, from its dimensions.

    The driver of a sweep opens no devices, which belong to its trials, and so builds no model.
    """
    width = model.hidden_size
    tables = model.vocab_size + model.num_positions * (2 if model.block_position_encoding else 1)
    attention = 4 * width**2 + 4 * width
    mlp = 2 * width * model.mlp_size + model.mlp_size + width
    norms = 4 * width
    return tables * width + model.num_layers * (attention + mlp + norms) + 2 * width


def _optimizer_bytes(optimizer: OptimizerConfig) -> int:
    if optimizer.name == "adamw":
        return MOMENT_BYTES[optimizer.moments]
    return STATE_BYTES.get(optimizer.name, 0)
