"""Cross-entropy on the masked targets, as sums, so that shards and micro-batches add up exactly."""

from __future__ import annotations

import math
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PyTree

# Gathered positions come in multiples of this: the columns of a TPU's tile.
TARGET_ROWS = 128


def token_losses(logits: Float[Array, "*B V"], targets: Int[Array, "*B"]) -> Float[Array, "*B"]:
    """Negative log-likelihood in nats of every target, computed in float32."""
    return optax.softmax_cross_entropy_with_integer_labels(logits.astype(jnp.float32), targets)


def smoothed_token_losses(
    logits: Float[Array, "*B V"], targets: Int[Array, "*B"], smoothing: float
) -> Float[Array, "*B"]:
    """Cross-entropy in nats with targets that keep `1 - smoothing` of their weight.

    The rest is spread evenly over the vocabulary's rows, padding included: the label smoothing of
    the original's finetuning.
    """
    spread = -jnp.mean(jax.nn.log_softmax(logits.astype(jnp.float32)), axis=-1)
    return (1 - smoothing) * token_losses(logits, targets) + smoothing * spread


def masked_loss_sum(
    logits: Float[Array, "*P V"], targets: Int[Array, "*P"], loss_mask: Float[Array, "*P"]
) -> Float[Array, ""]:
    """Sum of the token losses under the mask, in nats.

    The loss of a step is the sum over the global batch divided by the sum of its mask (0 for
    an empty mask), not a mean of means. Source: the original code's training loss.
    """
    return jnp.sum(token_losses(logits, targets) * loss_mask)


class TargetRows(NamedTuple):
    """Positions of all examples, one after another."""

    hidden: Float[Array, "P D"]
    targets: Int[Array, "P"]
    loss_mask: Float[Array, "P"]


def gather_targets(
    hidden: Float[Array, "B L D"],
    targets: Int[Array, "B L"],
    loss_mask: Float[Array, "B L"],
    fraction: float,
    *,
    multiple_of: int = TARGET_ROWS,
) -> tuple[TargetRows, Int[Array, ""]]:
    """The positions with a target, so that logits are computed for these alone.

    Args:
      hidden: hidden states.
      targets: token ids.
      loss_mask: which of them count; more than 0 where they do.
      fraction: P as a share of all B x L positions; 1 keeps every position, in order.
      multiple_of: what P is rounded up to a multiple of, unless it is all positions.

    Returns:
      P positions, filled up with masked ones, and how many targets exceed P.
    """
    rows = TargetRows(hidden.reshape(-1, hidden.shape[-1]), targets.ravel(), loss_mask.ravel())
    positions = targets.size
    kept = num_target_rows(positions, fraction, multiple_of)
    if kept == positions:
        return rows, jnp.zeros((), jnp.int32)
    counts = rows.loss_mask > 0
    (indices,) = jnp.nonzero(counts, size=kept, fill_value=positions)
    overflow = jnp.maximum(jnp.sum(counts) - kept, 0)
    # Indices past the end fill up the rest: they read as zeros and have no gradient.
    take = partial(jnp.take, indices=indices, axis=0, mode="fill", fill_value=0)
    return TargetRows(*(take(values) for values in rows)), overflow.astype(jnp.int32)


def mask_normalizer(loss_mask: Float[Array, "B L"]) -> Float[Array, ""]:
    """What a loss sum is divided by: the mask's sum, or 1 where the mask is empty."""
    total = jnp.sum(loss_mask)
    return jnp.where(total > 0, total, 1.0)


def num_target_rows(positions: int, fraction: float, multiple_of: int = TARGET_ROWS) -> int:
    """How many of `positions` positions `gather_targets` keeps: the loss capacity."""
    return min(math.ceil(fraction * positions / multiple_of) * multiple_of, positions)


def in_chunks(rows: PyTree, chunks: int) -> PyTree:
    """[P, ...] -> [chunks, P / chunks, ...]."""
    return jax.tree.map(lambda values: values.reshape(chunks, -1, *values.shape[1:]), rows)


def objective_sums(
    values: Float[Array, "P"], objective: Int[Array, "P"], num_objectives: int
) -> Float[Array, "O"]:
    """Sums of `values` over the positions of each objective."""
    return jax.ops.segment_sum(values, objective, num_segments=num_objectives)
