"""AdamW with the original's decay groups, and its learning-rate schedules."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike
from jaxtyping import Array, Float, PyTree

from glm_jax.errors import UsageError
from glm_jax.train.low_memory_adam import MOMENTS

Schedule = Callable[[ArrayLike], Float[Array, ""]]

# What is left of the way from the peak to the floor, given the progress: 0 at the peak, 1 at
# `decay_steps`, more after it.
DECAYS: dict[str, Callable[[Float[Array, ""]], Float[Array, ""]]] = {
    "cosine": lambda progress: (1 + jnp.cos(jnp.pi * jnp.minimum(progress, 1))) / 2,
    "linear": lambda progress: 1 - jnp.minimum(progress, 1),
    "linear_unclamped": lambda progress: 1 - progress,
    "constant": lambda progress: jnp.ones_like(progress),
}


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """AdamW, gradient clipping and the learning rate's course.

    Attributes:
      learning_rate: the peak.
      decay: "cosine", "linear", "constant", or "linear_unclamped", the original's linear decay,
        which runs on after `decay_steps`: below the floor and in the end below zero.
      warmup_fraction: warmup steps as a fraction of `decay_steps`.
      decay_steps: the step at which the learning rate reaches its floor, warmup included.
      final_fraction: the floor as a fraction of the peak.
      restart_step: the step after which a linear decay begins anew, 0 for never: it warms up once
        more, over as many steps as at the beginning, to the learning rate of that step.
      restart_decay_steps: steps after the second warmup until `final_fraction` of that rate.
      clip_norm: largest global gradient norm; larger gradients are scaled down to it.
      moments: how Adam's moments are kept: "float32" (8 bytes a parameter), "bfloat16" (4) or
        "factored" (2, with a second moment of row and column means).
    """

    learning_rate: float
    decay_steps: int
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

    def __post_init__(self):
        positive = ("learning_rate", "decay_steps", "epsilon", "clip_norm")
        for name in positive:
            if not getattr(self, name) > 0 or not math.isfinite(getattr(self, name)):
                raise UsageError(
                    f"optimizer.{name} is {getattr(self, name)}; expected a positive number"
                )
        for name in ("warmup_fraction", "beta1", "beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise UsageError(
                    f"optimizer.{name} is {getattr(self, name)}; expected a number in [0, 1)"
                )
        if not 0 <= self.final_fraction <= 1:
            raise UsageError(
                f"optimizer.final_fraction is {self.final_fraction}; expected a number in [0, 1]"
            )
        if self.restart_step < 0:
            raise UsageError(
                f"optimizer.restart_step is {self.restart_step}; expected a step, or 0 for never"
            )
        if (self.restart_step > 0) != (self.restart_decay_steps > 0):
            raise UsageError(
                f"optimizer.restart_decay_steps is {self.restart_decay_steps} with "
                f"optimizer.restart_step = {self.restart_step}; expected both above 0, or neither"
            )
        if not self.weight_decay >= 0:
            raise UsageError(
                f"optimizer.weight_decay is {self.weight_decay}; expected 0 or a positive number"
            )
        for name, choices in (("decay", DECAYS), ("moments", MOMENTS)):
            if getattr(self, name) not in choices:
                raise UsageError(
                    f"optimizer.{name} is {getattr(self, name)!r}; "
                    f"expected one of {', '.join(choices)}"
                )


def learning_rate_schedule(config: OptimizerConfig) -> Schedule:
    """The learning rate as a function of the step's number, counted from 0.

    Warmup rises linearly from 0 over `warmup_fraction * decay_steps` steps; the rest of
    `decay_steps` falls to `final_fraction` of the peak, and stays there except for a decay that is
    not clamped. The original's "exponential" is this "constant".
    Source: the schedules recorded from the original code.
    """
    warmup_steps = config.warmup_fraction * config.decay_steps
    first = _rise_and_fall(
        config.learning_rate,
        warmup_steps,
        config.decay_steps - warmup_steps,
        config.decay,
        config.final_fraction,
    )
    if not config.restart_step:
        return first

    def learning_rate(step):
        again = _rise_and_fall(
            first(config.restart_step),
            warmup_steps,
            config.restart_decay_steps,
            "linear",
            config.final_fraction,
        )
        return jnp.where(
            jnp.asarray(step) <= config.restart_step,
            first(step),
            again(jnp.asarray(step) - config.restart_step),
        )

    return learning_rate


def _rise_and_fall(
    peak: float | Float[Array, ""],
    warmup_steps: float,
    falling_steps: float,
    decay: str,
    final_fraction: float,
) -> Schedule:
    """Linear warmup to the peak, then the decay over `falling_steps` to a fraction of the peak."""

    def learning_rate(step):
        step = jnp.asarray(step, jnp.result_type(float))
        remaining = DECAYS[decay](jnp.maximum(step - warmup_steps, 0.0) / falling_steps)
        falling = final_fraction + (1 - final_fraction) * remaining
        rising = step / warmup_steps if warmup_steps else 1.0
        return peak * jnp.where(step <= warmup_steps, rising, falling)

    return learning_rate


def is_decayed(params: PyTree) -> PyTree:
    """True for the parameters under weight decay: all but LayerNorm parameters and biases."""

    def decayed(path: tuple[Any, ...], _leaf) -> bool:
        names = [key.key for key in path if isinstance(key, jax.tree_util.DictKey)]
        return names[-1] != "bias" and not any("layernorm" in name for name in names)

    return jax.tree_util.tree_map_with_path(decayed, params)


def make_optimizer(config: OptimizerConfig) -> optax.GradientTransformation:
    """Clipping by global norm, then Adam with decoupled weight decay, then the schedule."""
    return optax.chain(
        optax.clip_by_global_norm(config.clip_norm),
        MOMENTS[config.moments](config.beta1, config.beta2, config.epsilon),
        optax.add_decayed_weights(config.weight_decay, mask=is_decayed),
        optax.scale_by_learning_rate(learning_rate_schedule(config)),
    )


def parameter_count(params: PyTree) -> int:
    """Number of scalars in a tree of arrays or shapes."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))
