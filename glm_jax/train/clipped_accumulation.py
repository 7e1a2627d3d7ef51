"""The original's gradient accumulation, for comparisons with it: clipped after each micro-batch."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Key, PyTree

from glm_jax.parallel.batches import Batch, micro_batches
from glm_jax.train.gradients import Gradients, GradientSum, SumFunction, zero_sums
from glm_jax.train.loss import mask_normalizer


def clipped_means(
    sums: SumFunction,
    accumulation_steps: int,
    clip_norm: float,
    params: PyTree,
    batch: Batch,
    dropout_key: Key[Array, ""],
) -> Gradients:
    """A mean of micro-batch means, clipped after every micro-batch.

    Each micro-batch adds the gradient of its own mean loss divided by `accumulation_steps`, and the
    sum so far is scaled down to `clip_norm` each time (0: never). So targets of micro-batches with
    few of them weigh more, and early micro-batches lose more to clipping than late ones: for
    comparisons with the original, not for better training.
    Source: original code, its training without DeepSpeed (which clips once).
    """

    def add(total, numbered):
        number, micro_batch = numbered
        terms = sums(params, micro_batch, jax.random.fold_in(dropout_key, number))
        weight = 1 / (mask_normalizer(micro_batch["loss_mask"]) * accumulation_steps)
        values = jax.tree.map(lambda old, new: old + new * weight, total.values, terms.values)
        norm = optax.global_norm(values)
        if clip_norm:
            scale = clip_norm / jnp.maximum(norm, clip_norm)
            values = jax.tree.map(lambda value: value * scale, values)
        loss = total.loss + terms.loss * weight
        return GradientSum(loss, total.overflow + terms.overflow, values), norm

    numbered = (jnp.arange(accumulation_steps), micro_batches(batch, accumulation_steps))
    total, norms = jax.lax.scan(add, zero_sums(params), numbered)
    return Gradients(*total, norms)
