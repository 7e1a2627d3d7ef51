"""Logits -> scores of answers. Source: reference-finetune.md, section 5."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from glm_jax.train.loss import token_losses


def answer_scores(
    logits: Float[Array, "*B L V"],
    targets: Int[Array, "*B L"],
    loss_mask: Float[Array, "*B L"],
    *,
    length_penalty: float = 0.0,
) -> Float[Array, "*B"]:
    """Log-probability, in nats, of the answer of every row.

    Args:
      logits: of a row's positions.
      targets: token ids of the answer.
      loss_mask: 1 where they are.
      length_penalty: scores are divided by the number of tokens to this power.
    """
    return penalized(
        jnp.sum(-token_losses(logits, targets) * loss_mask, -1), loss_mask, length_penalty
    )


def penalized(
    scores: Float[Array, "*B"], loss_mask: Float[Array, "*B L"], length_penalty: float
) -> Float[Array, "*B"]:
    """Scores divided by the number of scored tokens to the power `length_penalty`."""
    if not length_penalty:
        return scores
    return scores / jnp.maximum(jnp.sum(loss_mask, axis=-1), 1.0) ** length_penalty


def verbalizer_scores(
    logits: Float[Array, "B V"], targets: Int[Array, "B C"], *, normalized: bool = False
) -> Float[Array, "B C"]:
    """The logits of the verbalizers at the mask.

    Args:
      logits: at the first position of Part B.
      targets: id of each label's verbalizer.
      normalized: log-probabilities over the vocabulary instead, as the AdaPET loss takes them.
    """
    logits = jax.nn.log_softmax(logits) if normalized else logits
    return jnp.take_along_axis(logits, targets, axis=-1)


def sums_by_choice(
    values: Float[Array, "B G Q"], answer_ids: Int[Array, "B G Q"], num_choices: int
) -> Float[Array, "B C"]:
    """The sum of the values at the positions of each choice."""
    belongs = answer_ids[..., None] == 1 + jnp.arange(num_choices)
    return jnp.sum(jnp.where(belongs, values[..., None], 0.0), axis=(1, 2))
