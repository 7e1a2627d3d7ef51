"""One update, as a pure function of state and batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jax.typing import ArrayLike
from jaxtyping import Array, Int, PyTree, Shaped

from glm_jax.train.gradients import GradientFunction
from glm_jax.train.optimizer import (
    Hyperparameters,
    OptimizerConfig,
    hyperparameters_of,
    learning_rate_schedule,
    make_optimizer,
)

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


class StepSettings(NamedTuple):
    """What is the same at every step of a run, and an argument of the compiled step.

    Runs that differ in nothing else share the compiled step.

    Attributes:
      seed: decides dropout; uint32.
      hyperparameters: of the optimizer.
    """

    seed: ArrayLike
    hyperparameters: Hyperparameters


def step_settings(config: OptimizerConfig, seed: int) -> StepSettings:
    """The settings of a run on the host, of the types that a step is compiled for."""

    def of_type(number: int | float) -> np.generic:
        return np.int32(number) if isinstance(number, int) else np.float32(number)

    numbers = jax.tree.map(of_type, hyperparameters_of(config))
    return StepSettings(seed_value(seed), numbers)


def settings_on_devices(settings: StepSettings, mesh: Mesh) -> StepSettings:
    """Settings on all devices of a mesh, where every step of a run uses them."""
    replicated = NamedSharding(mesh, PartitionSpec())
    return jax.tree.map(
        lambda value: jax.make_array_from_callback((), replicated, lambda _: value), settings
    )


def seed_value(seed: int) -> np.uint32:
    """What keys of random numbers are made from: the last 32 bits of a seed."""
    return np.uint32(seed % (1 << 32))


def make_train_step(
    gradients_of: GradientFunction, optimizer_config: OptimizerConfig, *, weights: str = "loss_mask"
) -> Callable[..., tuple[TrainState, Metrics]]:
    """Builds the step: (state, batch, settings) -> (state, metrics), to be compiled.

    Frozen parameters, where there are some, are a fourth argument.

    Args:
      gradients_of: the gradient of a batch.
      optimizer_config: the update. Its numbers are taken from the settings, see `StepSettings`.
      weights: the array of a batch whose sum is the metric `target_tokens`.

    An update whose loss or gradient is not finite is skipped and counted in `state.skipped`, so
    that parameters stay good; it does not advance the learning rate. The metric `gradient_norm` is
    the largest norm before a clipping; `target_overflow` counts targets that exceed the loss
    capacity, and must stay 0.
    """

    def train_step(state, batch, settings, *frozen):
        optimizer = make_optimizer(optimizer_config, settings.hyperparameters)
        learning_rate = learning_rate_schedule(optimizer_config, settings.hyperparameters)
        dropout_key = jax.random.fold_in(jax.random.key(settings.seed), state.step)
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
