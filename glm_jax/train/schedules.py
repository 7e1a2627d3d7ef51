"""Learning rates as functions of the step."""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

Schedule = Callable[[ArrayLike], Float[Array, ""]]

# The fraction of the way from the floor to the peak, given the progress: 0 at the peak, 1 at
# `decay_steps`, more after it.
DECAYS: dict[str, Callable[[Float[Array, ""]], Float[Array, ""]]] = {
    "cosine": lambda progress: (1 + jnp.cos(jnp.pi * jnp.minimum(progress, 1))) / 2,
    "linear": lambda progress: 1 - jnp.minimum(progress, 1),
    "linear_unclamped": lambda progress: 1 - progress,
    "constant": lambda progress: jnp.ones_like(progress),
}


def rise_and_fall(
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


def with_restart(
    first: Schedule,
    restart_step: int,
    warmup_steps: float,
    falling_steps: float,
    final_fraction: float,
) -> Schedule:
    """`first` up to the restart, then warmup to its last rate and a linear decay of that."""

    def learning_rate(step):
        second = rise_and_fall(
            first(restart_step), warmup_steps, falling_steps, "linear", final_fraction
        )
        step = jnp.asarray(step)
        return jnp.where(step <= restart_step, first(step), second(step - restart_step))

    return learning_rate
