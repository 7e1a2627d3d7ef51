"""Rows that are trained on as language models are: generative WSC, and priming texts.

Source: reference-finetune.md, sections 4, 6 and 11.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key, PyTree

from glm_jax.finetune.model_scores import Batch, Scorer
from glm_jax.model.embeddings import unembed
from glm_jax.parallel.collectives import gather_from_tensor_parallel, scatter_to_tensor_parallel
from glm_jax.train.gradients import LossSum
from glm_jax.train.loss import smoothed_token_losses, token_losses


def is_language_model_batch(batch: Mapping[str, Any]) -> bool:
    """Whether the tokens of a batch are learnt, rather than its labels."""
    return "label" not in batch


def language_model_loss(
    scorer: Scorer, smoothing: float, params: PyTree, batch: Batch, dropout_key: Key[Array, ""]
) -> LossSum:
    """Sum of the masked losses of the tokens of one device's rows, in nats."""
    hidden = scorer.hidden_states(params, batch, dropout_key)
    rows = (hidden.reshape(-1, hidden.shape[-1]), batch["targets"].ravel())
    hidden, targets, mask = (
        scatter_to_tensor_parallel(values, 0) for values in (*rows, batch["loss_mask"].ravel())
    )
    logits = unembed(hidden, _embedding_table(scorer, params))
    losses = (
        smoothed_token_losses(logits, targets, smoothing)
        if smoothing
        else token_losses(logits, targets)
    )
    return LossSum(jnp.sum(losses * mask), jnp.zeros((), jnp.int32))


def recognition_scores(
    scorer: Scorer, params: PyTree, batch: Batch, dropout_key: Key[Array, ""] | None
) -> Float[Array, "B 2"]:
    """Scores of "no" and "yes": 1 for yes where every token of the answer is the likeliest one.

    The tokens before each are the answer's, and the end of the piece is a token of it.
    """
    hidden = scorer.hidden_states(params, batch, dropout_key)
    index = batch["prefix_length"][:, None] + jnp.arange(scorer.answer_length)
    inside = index < hidden.shape[1]
    index = jnp.minimum(index, hidden.shape[1] - 1)
    part_b = jnp.take_along_axis(hidden, index[..., None], axis=1)
    targets, mask = (
        jnp.take_along_axis(batch[name], index, axis=1) for name in ("targets", "loss_mask")
    )
    # Each tensor-parallel device computes the logits of its own rows.
    part_b, targets, mask = (
        scatter_to_tensor_parallel(values, 0) for values in (part_b, targets, mask * inside)
    )
    logits = unembed(part_b, _embedding_table(scorer, params))
    yes = gather_from_tensor_parallel(all_likeliest(logits, targets, mask), 0)
    return jnp.stack([1 - yes, yes], axis=-1)


def all_likeliest(
    logits: Float[Array, "B A V"], targets: Int[Array, "B A"], mask: Float[Array, "B A"]
) -> Float[Array, "B"]:
    """1 where the target has the largest logit at every position under the mask, else 0."""
    right = (jnp.argmax(logits, axis=-1) == targets) | (mask == 0)
    return jnp.all(right, axis=-1).astype(jnp.float32)


def _embedding_table(scorer: Scorer, params: PyTree) -> Float[Array, "V D"]:
    table: jax.Array = scorer.model.apply({"params": params}, method="embedding_table")
    return table
