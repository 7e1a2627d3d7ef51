"""How long the spans of the token objective are, and how many of them a text needs."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
from jaxtyping import Float64


def span_length_distribution(mean: float, maximum: int) -> Float64[np.ndarray, "{maximum}-1"]:
    """Probabilities of the span lengths 1 to maximum - 1: Poisson, renormalised."""
    lengths = range(1, maximum)
    log = [k * math.log(mean) - mean - math.lgamma(k + 1) for k in lengths]
    probability = np.exp(np.asarray(log) - max(log))
    return probability / probability.sum()


@cache
def max_num_spans(mean: float, maximum: int, goal: int, quantile: float) -> int:
    """Number of spans that suffices, with probability `quantile`, to cover `goal` tokens.

    Spans are drawn until they cover the goal, so n of them do not suffice if n spans together are
    shorter than it.
    """
    lengths = np.concatenate([[0.0], span_length_distribution(mean, maximum)])[: max(goal, 1)]
    covered = np.zeros(max(goal, 1))  # probabilities of what has been covered, below the goal
    covered[0] = 1.0
    spans = 0
    while goal > 0 and covered.sum() > 1 - quantile:
        covered = np.convolve(covered, lengths)[:goal]
        spans += 1
    return max(spans, 1)
