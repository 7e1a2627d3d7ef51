"""Cross-entropy on the masked targets, as sums, so that shards and micro-batches add up exactly."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int


def token_losses(logits: Float[Array, "B L V"], targets: Int[Array, "B L"]) -> Float[Array, "B L"]:
    """Negative log-likelihood in nats of every target, computed in float32."""
    return optax.softmax_cross_entropy_with_integer_labels(logits.astype(jnp.float32), targets)


def smoothed_token_losses(
    logits: Float[Array, "B L V"], targets: Int[Array, "B L"], smoothing: float
) -> Float[Array, "B L"]:
    """Cross-entropy in nats with targets that keep `1 - smoothing` of their weight.

    The rest is spread evenly over the vocabulary's rows, padding included: the label smoothing of
    the original's finetuning.
    """
    spread = -jnp.mean(jax.nn.log_softmax(logits.astype(jnp.float32)), axis=-1)
    return (1 - smoothing) * token_losses(logits, targets) + smoothing * spread


def masked_loss_sum(
    logits: Float[Array, "B L V"],
    targets: Int[Array, "B L"],
    loss_mask: Float[Array, "B L"],
) -> Float[Array, ""]:
    """Sum of the token losses under the mask, in nats.

    The loss of a step is the sum over the whole global batch divided by the sum of its mask (0 for
    an empty mask), not a mean of means. Source: the original code's training loss.
    """
    return jnp.sum(token_losses(logits, targets) * loss_mask)


def mask_normalizer(loss_mask: Float[Array, "B L"]) -> Float[Array, ""]:
    """What a loss sum is divided by: the mask's sum, or 1 where the mask is empty."""
    total = jnp.sum(loss_mask)
    return jnp.where(total > 0, total, 1.0)


def objective_sums(
    values: Float[Array, "B L"], objective: Int[Array, "B"], num_objectives: int
) -> Float[Array, "O"]:
    """Sums of `values` over the examples of each objective."""
    return jax.ops.segment_sum(jnp.sum(values, axis=1), objective, num_segments=num_objectives)
