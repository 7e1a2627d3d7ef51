"""The loss and gradient of a step, over its whole batch or in micro-batches one after another."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, Key, PyTree, Shaped

from glm_jax.train.loss import mask_normalizer, masked_loss_sum

Batch = Mapping[str, Shaped[Array, "B ..."]]
LossFunction = Callable[[PyTree, Batch, Key[Array, ""]], Float[Array, ""]]


class Gradients(NamedTuple):
    """What an update is made from.

    Attributes:
      loss: mean loss of the batch, in nats.
      values: its gradient by every parameter.
      norms: the global norm before each clipping, in turn.
    """

    loss: Float[Array, ""]
    values: PyTree
    norms: Float[Array, "C"]


GradientFunction = Callable[[PyTree, Batch, Key[Array, ""]], Gradients]


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


def global_mean(loss_sum: LossFunction, accumulation_steps: int = 1) -> GradientFunction:
    """The mean over all targets of the batch, however it is sharded or split into micro-batches.

    Losses and gradients are added up as sums and divided by the sum of the whole batch's mask, so
    that every target counts alike. The gradient is clipped once, by the optimizer.
    """

    def gradients(params, batch, key):
        def add(sums, numbered):
            number, micro_batch = numbered
            micro_key = jax.random.fold_in(key, number)
            terms = jax.value_and_grad(loss_sum)(params, micro_batch, micro_key)
            return jax.tree.map(jnp.add, sums, terms), None

        if accumulation_steps == 1:
            sums = jax.value_and_grad(loss_sum)(params, batch, key)
        else:
            sums, _ = jax.lax.scan(add, _zeros(params), _numbered(batch, accumulation_steps))
        normalizer = mask_normalizer(batch["loss_mask"])
        loss, values = jax.tree.map(lambda total: total / normalizer, sums)
        return Gradients(loss, values, optax.global_norm(values)[None])

    return gradients


def clipped_means(
    loss_sum: LossFunction, accumulation_steps: int, clip_norm: float
) -> GradientFunction:
    """The original's accumulation: a mean of micro-batch means, clipped after every micro-batch.

    Each micro-batch adds the gradient of its own mean loss divided by `accumulation_steps`, and the
    sum so far is scaled down to `clip_norm` each time. So targets of micro-batches with few of them
    weigh more, and early micro-batches lose more to clipping than late ones: for comparisons with
    the original, not for better training.
    Source: original code, its training without DeepSpeed (which clips once).
    """

    def mean_loss(params, batch, key):
        normalizer = mask_normalizer(batch["loss_mask"]) * accumulation_steps
        return loss_sum(params, batch, key) / normalizer

    def gradients(params, batch, key):
        def add(sums, numbered):
            number, micro_batch = numbered
            micro_key = jax.random.fold_in(key, number)
            terms = jax.value_and_grad(mean_loss)(params, micro_batch, micro_key)
            loss, values = jax.tree.map(jnp.add, sums, terms)
            norm = optax.global_norm(values)
            scale = clip_norm / jnp.maximum(norm, clip_norm)
            return (loss, jax.tree.map(lambda value: value * scale, values)), norm

        sums, norms = jax.lax.scan(add, _zeros(params), _numbered(batch, accumulation_steps))
        return Gradients(*sums, norms)

    return gradients


def _zeros(params: PyTree) -> tuple[Float[Array, ""], PyTree]:
    return jnp.zeros(()), jax.tree.map(jnp.zeros_like, params)


def _numbered(batch: Batch, count: int) -> tuple[Int[Array, "C"], Batch]:
    return jnp.arange(count), micro_batches(batch, count)
