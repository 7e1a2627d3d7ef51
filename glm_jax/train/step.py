"""One update, as a pure function of state and batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Key, PyTree, Shaped

from glm_jax.train.loss import mask_normalizer, masked_loss_sum
from glm_jax.train.optimizer import Schedule
from glm_jax.train.state import TrainState

Batch = Mapping[str, Shaped[Array, "B ..."]]
Metrics = dict[str, Shaped[Array, ""]]
LossFunction = Callable[[PyTree, Batch, Key[Array, ""]], Shaped[Array, ""]]


def make_loss_function(model) -> LossFunction:
    """The sum of a batch's masked losses in nats, with dropout drawn from the given key."""

    def loss_sum(params, batch, dropout_key):
        logits = model.apply(
            {"params": params},
            batch["tokens"],
            batch["position_ids"],
            batch["prefix_length"],
            deterministic=False,
            rngs={"dropout": dropout_key},
        )
        return masked_loss_sum(logits, batch["targets"], batch["loss_mask"])

    return loss_sum


def micro_batches(batch: Batch, count: int) -> Batch:
    """[B, ...] -> [count, B / count, ...], micro-batch j taking every count-th row from j on.

    Strided rows keep every device's rows on that device, where contiguous ones would move them.
    """

    def split(values):
        rows = values.reshape(values.shape[0] // count, count, *values.shape[1:])
        return jnp.swapaxes(rows, 0, 1)

    return jax.tree.map(split, dict(batch))


def accumulated_gradients(
    loss_sum: LossFunction, params: PyTree, batch: Batch, key: Key[Array, ""], count: int
) -> tuple[Shaped[Array, ""], PyTree]:
    """Loss sum and gradient sum over the batch, taken in `count` micro-batches in turn."""

    def add(sums, numbered):
        number, micro_batch = numbered
        terms = jax.value_and_grad(loss_sum)(params, micro_batch, jax.random.fold_in(key, number))
        return jax.tree.map(jnp.add, sums, terms), None

    zeros = (jnp.zeros(()), jax.tree.map(jnp.zeros_like, params))
    numbered = (jnp.arange(count), micro_batches(batch, count))
    return jax.lax.scan(add, zeros, numbered)[0]


def make_train_step(
    loss_sum: LossFunction,
    optimizer: optax.GradientTransformation,
    learning_rate: Schedule,
    *,
    seed: int,
    accumulation_steps: int = 1,
) -> Callable[[TrainState, Batch], tuple[TrainState, Metrics]]:
    """Builds the step: (state, batch) -> (state, metrics), to be compiled with its shardings.

    The loss and its gradient are sums over the global batch divided by the global mask sum, however
    the batch is sharded or split. An update whose loss or gradient is not finite is left out and
    counted in `state.skipped`, so that parameters stay good.
    """

    def train_step(state, batch):
        key = jax.random.fold_in(jax.random.key(seed), state.step)
        if accumulation_steps == 1:
            sums = jax.value_and_grad(loss_sum)(state.params, batch, key)
        else:
            sums = accumulated_gradients(loss_sum, state.params, batch, key, accumulation_steps)
        normalizer = mask_normalizer(batch["loss_mask"])
        loss, gradients = jax.tree.map(lambda total: total / normalizer, sums)
        gradient_norm = optax.global_norm(gradients)
        finite = jnp.isfinite(loss) & jnp.isfinite(gradient_norm)

        updates, optimizer_state = optimizer.update(gradients, state.optimizer_state, state.params)
        new = (optax.apply_updates(state.params, updates), optimizer_state)
        old = (state.params, state.optimizer_state)
        params, optimizer_state = jax.tree.map(lambda n, o: jnp.where(finite, n, o), new, old)

        skipped = state.skipped + jnp.where(finite, 0, 1)
        metrics = {
            "loss": loss,
            "gradient_norm": gradient_norm,
            "learning_rate": learning_rate(state.step - state.skipped),
            "target_tokens": jnp.sum(batch["loss_mask"]),
            "skipped_steps": skipped,
        }
        return TrainState(state.step + 1, skipped, params, optimizer_state), metrics

    return train_step
