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

Schedule = Callable[[ArrayLike], Float[Array, ""]]

# What is left of the way from the peak to the floor, given the progress from 0 to 1.
DECAYS: dict[str, Callable[[Float[Array, ""]], Float[Array, ""]]] = {
    "cosine": lambda progress: (1 + jnp.cos(jnp.pi * progress)) / 2,
    "linear": lambda progress: 1 - progress,
    "constant": lambda progress: jnp.ones_like(progress),
}


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """AdamW, gradient clipping and the learning rate's course.

    Attributes:
      learning_rate: the peak.
      decay: "cosine", "linear" or "constant".
      warmup_fraction: warmup steps as a fraction of `decay_steps`.
      decay_steps: the step at which the learning rate reaches its floor, warmup included.
      final_fraction: the floor as a fraction of the peak.
      clip_norm: largest global gradient norm; larger gradients are scaled down to it.
    """

    learning_rate: float
    decay_steps: int
    decay: str = "cosine"
    warmup_fraction: float = 0.05
    final_fraction: float = 0.05
    beta1: float = 0.9
    beta2: float = 0.98
    epsilon: float = 1e-6
    weight_decay: float = 0.1
    clip_norm: float = 1.0

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
        if not self.weight_decay >= 0:
            raise UsageError(
                f"optimizer.weight_decay is {self.weight_decay}; expected 0 or a positive number"
            )
        if self.decay not in DECAYS:
            raise UsageError(
                f"optimizer.decay is {self.decay!r}; expected one of {', '.join(DECAYS)}"
            )


def learning_rate_schedule(config: OptimizerConfig) -> Schedule:
    """The learning rate as a function of the step's number, counted from 0.

    Warmup rises linearly from 0 over `warmup_fraction * decay_steps` steps; the rest of
    `decay_steps` falls to `final_fraction` of the peak, and stays there. (The original lets a
    linear decay run on past its end, below the floor and finally below zero; we stop at the floor.)
    Source: the schedules recorded from the original code.
    """
    warmup_steps = config.warmup_fraction * config.decay_steps
    falling_steps = config.decay_steps - warmup_steps

    def learning_rate(step):
        step = jnp.asarray(step, jnp.result_type(float))
        progress = jnp.clip((step - warmup_steps) / falling_steps, 0.0, 1.0)
        remaining = DECAYS[config.decay](progress)
        falling = config.final_fraction + (1 - config.final_fraction) * remaining
        rising = step / warmup_steps if warmup_steps else 1.0
        return config.learning_rate * jnp.where(step <= warmup_steps, rising, falling)

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
        optax.scale_by_adam(config.beta1, config.beta2, config.epsilon),
        optax.add_decayed_weights(config.weight_decay, mask=is_decayed),
        optax.scale_by_learning_rate(learning_rate_schedule(config)),
    )


def parameter_count(params: PyTree) -> int:
    """Number of scalars in a tree of arrays or shapes."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))
