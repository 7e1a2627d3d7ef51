"""Scores of choices and their labels -> losses of examples, in nats.

Source: reference-finetune.md, section 5.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import jax
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
    scores: Float[Array, "B C"],
    labels: Int[Array, "B"],
    smoothing: float = 0.0,
    choice_mask: Float[Array, "B C"] | None = None,
) -> Float[Array, "B"]:
    """Negative log-likelihood of the label among the choices.

    Args:
      scores: masked.
      labels: index of the right choice.
      smoothing: weight of the mean over the choices, which takes it from the label's.
      choice_mask: 1 for choices that are there; the mean is over these. None for all.
    """
    losses = token_losses(scores, labels)
    if not smoothing:
        return losses
    if choice_mask is None:
        return smoothed_token_losses(scores, labels, smoothing)
    spread = jnp.sum(jax.nn.log_softmax(scores) * choice_mask, axis=-1)
    spread = -spread / jnp.sum(choice_mask, axis=-1)
    return (1 - smoothing) * losses + smoothing * spread


def hinge(scores: Float[Array, "B C"], labels: Int[Array, "B"]) -> Float[Array, "B"]:
    """Sum over other choices of how far they are from lying 1 below the label's score."""
    margins = jnp.maximum(0.0, 1 + scores - _of_label(scores, labels)[:, None])
    return jnp.sum(margins, axis=-1) - 1


def generative(scores: Float[Array, "B C"], labels: Int[Array, "B"]) -> Float[Array, "B"]:
    """The negative score of the label alone."""
    return -_of_label(scores, labels)


def mix(
    scores: Float[Array, "B C"],
    labels: Int[Array, "B"],
    smoothing: float = 0.0,
    choice_mask: Float[Array, "B C"] | None = None,
) -> Float[Array, "B"]:
    """`generative` plus `cross_entropy`."""
    return generative(scores, labels) + cross_entropy(scores, labels, smoothing, choice_mask)


def adapet(
    scores: Float[Array, "B C"],
    labels: Int[Array, "B"],
    choice_mask: Float[Array, "B C"] | None = None,
) -> Float[Array, "B"]:
    """Sum of all scores, that of the label negative.

    Source: Tam et al. (2021), Improving and Simplifying Pattern Exploiting Training, as the
    original has it.
    """
    masked = scores if choice_mask is None else scores * choice_mask
    return jnp.sum(masked, axis=-1) - 2 * _of_label(masked, labels)


def _of_label(scores: Float[Array, "B C"], labels: Int[Array, "B"]) -> Float[Array, "B"]:
    return jnp.take_along_axis(scores, labels[:, None], axis=-1)[:, 0]


def example_losses(
    loss: str,
    scores: Float[Array, "B C"],
    labels: Int[Array, "B"],
    choice_mask: Float[Array, "B C"] | None,
    smoothing: float = 0.0,
) -> Float[Array, "B"]:
    """The loss of every example.

    Args:
      loss: a name in `LOSSES`.
      scores: of the choices.
      labels: index of the right one.
      choice_mask: 1 for choices that are there; None for all.
      smoothing: label smoothing, of the losses in `SMOOTHED`.
    """
    if loss == "adapet":
        return adapet(scores.astype(jnp.float32), labels, choice_mask)
    masked = masked_scores(scores, choice_mask)
    if loss in SMOOTHED:
        return LOSSES[loss](masked, labels, smoothing, choice_mask)
    return LOSSES[loss](masked, labels)


LOSSES: Mapping[str, Callable[..., Array]] = {
    "cross_entropy": cross_entropy,
    "hinge": hinge,
    "generative": generative,
    "mix": mix,
    "adapet": adapet,
}
# Those with a part that label smoothing changes.
SMOOTHED = ("cross_entropy", "mix")
# Those that take scores for log-probabilities; others of scores without a bound have none either.
OF_LOG_PROBABILITIES = ("generative", "mix", "adapet")
