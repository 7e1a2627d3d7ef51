"""Prefix attention and its gradients in float64 by the formulas, with the whole mask."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int


class Attended(NamedTuple):
    """The context, and the gradients for a given gradient of the context."""

    context: Float[np.ndarray, "B L H K"]
    by_query: Float[np.ndarray, "B L H K"]
    by_key: Float[np.ndarray, "B M H K"]
    by_value: Float[np.ndarray, "B M H K"]


def naive_attention(
    query: Float[np.ndarray, "B L H K"],
    key: Float[np.ndarray, "B M H K"],
    value: Float[np.ndarray, "B M H K"],
    gradient: Float[np.ndarray, "B L H K"],
    prefix_length: Int[np.ndarray, "B"],
    query_start: int,
    factors: Float[np.ndarray, "B H L M"] | float = 1.0,
) -> Attended:
    """Query `query_start + i` sees key j if `j <= query_start + i` or `j < prefix_length`.

    Dropout multiplies the probabilities by its factors: 0, or 1 / (1 - rate).
    """
    query, key, value, gradient = (
        np.asarray(array, np.float64).swapaxes(1, 2) for array in (query, key, value, gradient)
    )
    scale = query.shape[3] ** -0.5
    position = query_start + np.arange(query.shape[2])[:, None]
    other = np.arange(key.shape[2])[None, :]
    seen = (other <= position) | (other < np.asarray(prefix_length)[:, None, None, None])
    scores = np.where(seen, query @ key.swapaxes(2, 3) * scale, -np.inf)
    weights = np.exp(scores - scores.max(axis=3, keepdims=True))
    weights /= weights.sum(axis=3, keepdims=True)
    by_weights = factors * (gradient @ value.swapaxes(2, 3))
    used = weights * factors
    by_scores = weights * (by_weights - (weights * by_weights).sum(axis=3, keepdims=True)) * scale
    results = (
        used @ value,
        by_scores @ key,
        by_scores.swapaxes(2, 3) @ query,
        used.swapaxes(2, 3) @ gradient,
    )
    return Attended(*(array.swapaxes(1, 2) for array in results))
