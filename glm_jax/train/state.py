"""What a training run carries from step to step."""

from __future__ import annotations

import flax.struct
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int, PyTree


@flax.struct.dataclass
class TrainState:
    """Parameters, optimizer state and counters: all that a checkpoint must hold.

    `step` counts the batches used and so places the run in its data; `skipped` counts those of
    them whose update was left out because loss or gradients were not finite.
    """

    step: Int[Array, ""]
    skipped: Int[Array, ""]
    params: PyTree
    optimizer_state: optax.OptState


def initial_state(params: PyTree, optimizer: optax.GradientTransformation) -> TrainState:
    """The state before the first step."""
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        skipped=jnp.zeros((), jnp.int32),
        params=params,
        optimizer_state=optimizer.init(params),
    )
