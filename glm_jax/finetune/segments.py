"""Scores of segments of answers -> scores of the answers (`task.segment_length`)."""

from __future__ import annotations

from collections.abc import Mapping

import jax
from jaxtyping import Array, Float


def choice_scores(scores: Float[Array, "B S"], batch: Mapping[str, Array]) -> Float[Array, "B C"]:
    """The sums over the segments of every choice, where rows are segments; else the scores.

    Args:
      scores: of the rows of every example.
      batch: has `segment_ids` [B, S], the choice of each segment, `segment_mask` [B, S], 0 for
        rows that only fill up the batch, and `choice_mask` [B, C].
    """
    if "segment_ids" not in batch:
        return scores
    num_choices = batch["choice_mask"].shape[1]

    def of_example(scores: Array, ids: Array) -> Array:
        return jax.ops.segment_sum(scores, ids, num_segments=num_choices)

    return jax.vmap(of_example)(scores * batch["segment_mask"], batch["segment_ids"])
