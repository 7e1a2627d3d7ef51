"""Learning rates as functions of the step.

Their numbers may be arguments of a compiled function, so that learning rates and lengths that
differ don't make other programs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int

Schedule = Callable[[ArrayLike], Float[Array, ""]]
# A constant, or an argument of a compiled function.
Scalar = float | Float[Array, ""]

# The fraction of the way from the floor to the peak, given the progress: 0 at the peak, 1 at
# `decay_steps`, more after it.
DECAYS: dict[str, Callable[[Float[Array, ""]], Float[Array, ""]]] = {
    "cosine": lambda progress: (1 + jnp.cos(jnp.pi * jnp.minimum(progress, 1))) / 2,
    "linear": lambda progress: 1 - jnp.minimum(progress, 1),
    "linear_unclamped": lambda progress: 1 - progress,
    "constant": lambda progress: jnp.ones_like(progress),
}


class RiseAndFall(NamedTuple):
    """The numbers of a warmup and a decay; scalars.

    Attributes:
      warmup_steps, falling_steps: how long each takes, in steps.
      final_fraction: the floor as a fraction of the peak.
      falling_fraction: the rest of the peak, which 1 - final_fraction would round differently.
    """

    warmup_steps: Scalar
    falling_steps: Scalar
    final_fraction: Scalar
    falling_fraction: Scalar


class Restart(NamedTuple):
    """The step after which a decay restarts, and the course from there; scalars."""

    step: int | Int[Array, ""]
    course: RiseAndFall


class LearningRate(NamedTuple):
    """The numbers of a learning rate; scalars."""

    peak: Scalar
    course: RiseAndFall
    restart: Restart | None = None


def rise_and_fall(warmup_steps: float, falling_steps: float, final_fraction: float) -> RiseAndFall:
    """A warmup of some steps, and a decay over some more to a fraction of the peak."""
    if warmup_steps > 0:
        # A number that float32 has, and whose reciprocal is one too.
        warmup_steps = max(warmup_steps, float(np.finfo(np.float32).tiny))
    return RiseAndFall(warmup_steps, falling_steps, final_fraction, 1 - final_fraction)


def schedule(numbers: LearningRate, decay: str) -> Schedule:
    """The learning rate at a step, counted from 0.

    A restart warms up to the rate that the decay had then, and falls linearly from there.
    """
    first = _schedule(numbers.peak, numbers.course, decay)
    restart = numbers.restart
    if restart is None:
        return first

    def learning_rate(step):
        second = _schedule(first(restart.step), restart.course, "linear")
        step = jnp.asarray(step)
        return jnp.where(step <= restart.step, first(step), second(step - restart.step))

    return learning_rate


def _schedule(peak: Scalar, course: RiseAndFall, decay: str) -> Schedule:
    """Linear warmup to the peak, then the decay."""

    def learning_rate(step):
        step = jnp.asarray(step, jnp.result_type(float))
        warmup_steps = course.warmup_steps
        # Products with reciprocals, which compilers make of quotients by constants: so the rates
        # are the same ones whether the numbers are constants or arguments.
        progress = jnp.maximum(step - warmup_steps, 0.0) * (1 / course.falling_steps)
        falling = course.final_fraction + course.falling_fraction * DECAYS[decay](progress)
        has_warmup = warmup_steps > 0
        slope = 1 / jnp.where(has_warmup, warmup_steps, 1.0)
        rising = jnp.where(has_warmup, step * slope, 1.0)
        return peak * jnp.where(step <= warmup_steps, rising, falling)

    return learning_rate
