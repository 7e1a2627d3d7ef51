"""The update: clipping, one of the optimizers, weight-decay groups, a learning-rate schedule."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import optax
from jaxtyping import PyTree

from glm_jax import validation
from glm_jax.errors import UsageError
from glm_jax.train.low_memory_adam import MOMENTS
from glm_jax.train.optimizers import (
    OPTIMIZERS,
    AdamSettings,
    check_settings,
    sharded_like_parameters,
)
from glm_jax.train.schedules import (
    DECAYS,
    LearningRate,
    Restart,
    Scalar,
    Schedule,
    rise_and_fall,
    schedule,
)


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """The optimizer, gradient clipping and the course of the learning rate.

    Attributes:
      learning_rate: the peak.
      decay: "cosine", "linear", "constant", or "linear_unclamped", the original's linear decay,
        which continues after `decay_steps`: below the floor and in the end below zero.
      warmup_fraction: warmup steps as a fraction of `decay_steps`.
      decay_steps: the step at which the learning rate reaches its floor, warmup included; in
        finetuning 0 means the last step of the run.
      final_fraction: the floor as a fraction of the peak.
      restart_step: the step after which a linear decay restarts, 0 for never: it warms up once
        more, over as many steps as the first time, to the learning rate of that step.
      restart_decay_steps: steps after the second warmup until `final_fraction` of that rate.
      beta1, beta2, epsilon: of Adam ("adamw", and the tables and vectors of "muon").
      weight_decay: decoupled, of every optimizer, for all but LayerNorm parameters and biases.
      clip_norm: largest global gradient norm; larger gradients are scaled down to it. 0 means no
        clipping.
      moments: how "adamw" keeps its moments: "float32" (8 bytes a parameter), "bfloat16" (4) or
        "factored" (2, with a second moment of row and column means).
      name: one of `OPTIMIZERS`.
      settings: the optimizer's own settings by name, such as {"momentum": 0.95}; those not given
        have the defaults of its function in `glm_jax.train.optimizers`.
    """

    learning_rate: float
    decay_steps: int = 0
    decay: str = "cosine"
    warmup_fraction: float = 0.05
    final_fraction: float = 0.05
    restart_step: int = 0
    restart_decay_steps: int = 0
    beta1: float = 0.9
    beta2: float = 0.98
    epsilon: float = 1e-6
    weight_decay: float = 0.1
    clip_norm: float = 1.0
    moments: str = "float32"
    name: str = "adamw"
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        validation.positive("optimizer", self, "learning_rate", "epsilon")
        validation.at_least("optimizer", self, 0, "decay_steps")
        validation.fraction("optimizer", self, "warmup_fraction", "beta1", "beta2", one=False)
        validation.fraction("optimizer", self, "final_fraction")
        validation.non_negative("optimizer", self, "weight_decay", "clip_norm")
        validation.at_least("optimizer", self, 0, "restart_step")
        if (self.restart_step > 0) != (self.restart_decay_steps > 0):
            raise UsageError(
                f"optimizer.restart_decay_steps is {self.restart_decay_steps} with "
                f"optimizer.restart_step = {self.restart_step}; expected both above 0, or neither"
            )
        validation.choice("optimizer", self, "decay", DECAYS)
        validation.choice("optimizer", self, "moments", MOMENTS)
        validation.choice("optimizer", self, "name", OPTIMIZERS)
        if self.name != "adamw" and self.moments != "float32":
            raise UsageError(
                f"optimizer.moments is {self.moments!r}, but only optimizer.name = 'adamw' has "
                f"other moments than float32, not {self.name!r}"
            )
        check_settings(self.name, self.settings)


class Hyperparameters(NamedTuple):
    """The numbers of an optimizer that may be arguments of a compiled step; scalars.

    Runs that differ in nothing else share the compiled step. The other numbers remain constants of
    it: as arguments they would change the last bits of updates, since compilers simplify and round
    what they know.
    """

    learning_rate: LearningRate
    weight_decay: Scalar


def hyperparameters_of(config: OptimizerConfig) -> Hyperparameters:
    """The numbers of a configuration, as Python's."""
    warmup_steps = float(config.warmup_fraction * config.decay_steps)
    floor = float(config.final_fraction)
    course = rise_and_fall(warmup_steps, config.decay_steps - warmup_steps, floor)
    restart = None
    if config.restart_step:
        again = rise_and_fall(warmup_steps, float(config.restart_decay_steps), floor)
        restart = Restart(config.restart_step, again)
    return Hyperparameters(
        LearningRate(float(config.learning_rate), course, restart),
        float(config.weight_decay),
    )


def learning_rate_schedule(
    config: OptimizerConfig, hyperparameters: Hyperparameters | None = None
) -> Schedule:
    """The learning rate as a function of the step's number, counted from 0.

    Warmup rises linearly from 0 over `warmup_fraction * decay_steps` steps; the rest of
    `decay_steps` falls to `final_fraction` of the peak, and stays there except for a decay that is
    not clamped. The original's "exponential" is this "constant".
    Source: the schedules recorded from the original code.

    Args:
      config: has the kind of decay.
      hyperparameters: the numbers; those of `config`, if None.
    """
    numbers = hyperparameters or hyperparameters_of(config)
    return schedule(numbers.learning_rate, config.decay)


def is_decayed(params: PyTree) -> PyTree:
    """True for the parameters under weight decay: all but LayerNorm parameters and biases."""

    def decayed(path: tuple[Any, ...], _leaf) -> bool:
        names = [key.key for key in path if isinstance(key, jax.tree_util.DictKey)]
        return names[-1] != "bias" and not any("layernorm" in name for name in names)

    return jax.tree_util.tree_map_with_path(decayed, params)


def make_optimizer(
    config: OptimizerConfig, hyperparameters: Hyperparameters | None = None
) -> optax.GradientTransformation:
    """Clipping by global norm, the optimizer, decoupled weight decay, then the schedule.

    Args:
      config: the rest.
      hyperparameters: the numbers; those of `config`, if None.
    """
    numbers = hyperparameters or hyperparameters_of(config)
    adam = AdamSettings(config.beta1, config.beta2, config.epsilon, config.moments)
    return sharded_like_parameters(
        optax.chain(
            optax.clip_by_global_norm(config.clip_norm) if config.clip_norm else optax.identity(),
            OPTIMIZERS[config.name](adam, **config.settings),
            optax.add_decayed_weights(numbers.weight_decay, mask=is_decayed),
            optax.scale_by_learning_rate(learning_rate_schedule(config, numbers)),
        )
    )


def parameter_count(params: PyTree) -> int:
    """Number of scalars in a tree of arrays or shapes."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))
