"""Scores by several patterns -> scores of examples."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float


def mean_over_patterns(
    scores: Float[np.ndarray, "R C"], num_examples: int
) -> Float[np.ndarray, "N C"]:
    """The mean probability of every choice, so that each pattern weighs the same.

    Args:
      scores: of R = patterns x examples rows, those of the first pattern first. Scores of different
        patterns are logits of different words, or of answers in different contexts, so they are
        made probabilities over the choices first.
      num_examples: N. With one pattern the scores stay as they are.
    """
    if len(scores) == num_examples:
        return scores
    exponentials = np.exp(scores - scores.max(axis=-1, keepdims=True))
    probabilities = exponentials / exponentials.sum(axis=-1, keepdims=True)
    return probabilities.reshape(-1, num_examples, scores.shape[-1]).mean(axis=0)
