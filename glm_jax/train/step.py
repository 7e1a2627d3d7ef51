"""One update, as a pure function of state and batch."""

from __future__ import annotations

from collections.abc import Callable

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int, PyTree, Shaped, UInt32

from glm_jax.train.gradients import GradientFunction
from glm_jax.train.optimizer import Schedule

Metrics = dict[str, Shaped[Array, ""]]


@flax.struct.dataclass
class TrainState:
    """Parameters, optimizer state and counters: all that a checkpoint must hold.

    `step` counts the batches used, which is also the run's position in its data; `skipped` counts
    those of them whose update was skipped because loss or gradients were not finite.
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


def make_train_step(
    gradients_of: GradientFunction,
    optimizer: optax.GradientTransformation,
    learning_rate: Schedule,
    *,
    seed: int | UInt32[Array, ""],
    weights: str = "loss_mask",
) -> Callable[..., tuple[TrainState, Metrics]]:
    """Builds the step: (state, batch) -> (state, metrics), to be compiled with its shardings.

    Frozen parameters, where there are some, are a third argument.

    Args:
      gradients_of: the gradient of a batch.
      optimizer: the update.
      learning_rate: its learning rate, which is a metric.
      seed: decides dropout.
      weights: the array of a batch whose sum is the metric `target_tokens`.

    An update whose loss or gradient is not finite is skipped and counted in `state.skipped`, so
    that parameters stay good; it does not advance the learning rate. The metric `gradient_norm` is
    the largest norm before a clipping; `target_overflow` counts targets that exceed the loss
    capacity, and must stay 0.
    """

    def train_step(state, batch, *frozen):
        dropout_key = jax.random.fold_in(jax.random.key(seed), state.step)
        loss, overflow, gradients, norms = gradients_of(state.params, batch, dropout_key, *frozen)
        gradient_norm = jnp.max(norms)

        updates, optimizer_state = optimizer.update(gradients, state.optimizer_state, state.params)
        new = (optax.apply_updates(state.params, updates), optimizer_state)
        old = (state.params, state.optimizer_state)
        finite = jnp.isfinite(loss) & jnp.isfinite(gradient_norm)
        params, optimizer_state = jax.tree.map(lambda n, o: jnp.where(finite, n, o), new, old)

        skipped = state.skipped + jnp.where(finite, 0, 1)
        metrics = {
            "loss": loss,
            "gradient_norm": gradient_norm,
            "learning_rate": learning_rate(state.step - state.skipped),
            "target_tokens": jnp.sum(batch[weights]),
            "target_overflow": overflow,
            "skipped_steps": skipped,
        }
        return TrainState(state.step + 1, skipped, params, optimizer_state), metrics

    return train_step
