"""Scores of choices and their labels -> losses of examples, in nats.

Source: reference-finetune.md, section 5.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from glm_jax.train.loss import smoothed_token_losses, token_losses

# What is subtracted from the score of a choice that is not there.
MISSING_CHOICE = 10_000.0


def masked_scores(
    scores: Float[Array, "B C"], choice_mask: Float[Array, "B C"] | None
) -> Float[Array, "B C"]:
    """Float32 scores in which choices that are not there can't win."""
    scores = scores.astype(jnp.float32)
    if choice_mask is None:
        return scores
    return scores * choice_mask - MISSING_CHOICE * (1 - choice_mask)


def cross_entropy(
    scores: Float[Array, "B C"], labels: Int[Array, "B"], smoothing: float = 0.0
) -> Float[Array, "B"]:
    """Negative log-likelihood of the label among the choices."""
    if smoothing:
        return smoothed_token_losses(scores, labels, smoothing)
    return token_losses(scores, labels)


def hinge(scores: Float[Array, "B C"], labels: Int[Array, "B"]) -> Float[Array, "B"]:
    """Sum over other choices of how far they are from lying 1 below the label's score."""
    margins = jnp.maximum(0.0, 1 + scores - _of_label(scores, labels)[:, None])
    return jnp.sum(margins, axis=-1) - 1


def generative(scores: Float[Array, "B C"], labels: Int[Array, "B"]) -> Float[Array, "B"]:
    """The negative score of the label alone."""
    return -_of_label(scores, labels)


def mix(scores: Float[Array, "B C"], labels: Int[Array, "B"]) -> Float[Array, "B"]:
    """`generative` plus `cross_entropy`."""
    return generative(scores, labels) + cross_entropy(scores, labels)


def adapet(
    scores: Float[Array, "B C"], labels: Int[Array, "B"], choice_mask: Float[Array, "B C"]
) -> Float[Array, "B"]:
    """Sum of all scores, that of the label negative.

    Source: Tam et al. (2021), Improving and Simplifying Pattern Exploiting Training, as the
    original has it.
    """
    masked = scores * choice_mask
    return jnp.sum(masked, axis=-1) - 2 * _of_label(masked, labels)


def _of_label(scores: Float[Array, "B C"], labels: Int[Array, "B"]) -> Float[Array, "B"]:
    return jnp.take_along_axis(scores, labels[:, None], axis=-1)[:, 0]


LOSSES: Mapping[str, Callable[[Array, Array], Array]] = {
    "cross_entropy": cross_entropy,
    "hinge": hinge,
    "generative": generative,
    "mix": mix,
}
