"""The objectives of GLM: which one an example has, and how much text it takes."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import tensorflow as tf
from jaxtyping import Bool, Float64, Int32, Int64

from glm_jax.data.blanks.config import SPAN_COST, BlankConfig, Objective
from glm_jax.data.randomness import Stream, uniforms

_ENOUGH = 0.977  # of the examples keep all spans: two standard deviations above the mean


_SENTENCE_LENGTH = 20  # tokens, in ordinary prose


def expected_text_length(objective: Objective, config: BlankConfig, sequence_length: int) -> int:
    """Tokens of text with which an example fills the sequence, nearly always without dropped spans.

    Every span takes two further positions, its mask and its sop, and how many spans there are is
    drawn: where they are fewer than expected here, the sequence ends with padding.

    Args:
      sequence_length: L, Part A and Part B together.
    """

    def num_spans(length: int) -> int:
        if objective == Objective.TOKEN:
            goal = int(config.mask_ratio * length)
            return most_spans(config.mean_span_length, config.max_span_length, goal, _ENOUGH)
        if objective == Objective.SENTENCE:  # sentences of any length: one, and then Poisson
            mean = config.sentence_mask_ratio * length / _SENTENCE_LENGTH
            return 1 + round(mean + 2 * mean**0.5)
        return 1

    if config.masked_lm and objective == Objective.TOKEN:
        return sequence_length
    length = sequence_length - SPAN_COST
    while length > 1 and length + SPAN_COST * num_spans(length) > sequence_length:
        length -= 1
    return length


def span_length_distribution(mean: float, maximum: int) -> Float64[np.ndarray, "maximum-1"]:
    """Probabilities of the span lengths 1 to maximum - 1: Poisson, renormalised."""
    lengths = range(1, maximum)
    log = [k * math.log(mean) - mean - math.lgamma(k + 1) for k in lengths]
    probability = np.exp(np.asarray(log) - max(log))
    return probability / probability.sum()


@cache
def most_spans(mean: float, maximum: int, goal: int, quantile: float) -> int:
    """How many spans suffice, with probability `quantile`, to cover `goal` tokens.

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


def draw_objectives(
    example: Int64[tf.Tensor, "B"], config: BlankConfig, seed: int
) -> tuple[Int32[tf.Tensor, "B"], Bool[tf.Tensor, "B"]]:
    """The objective of each example, and whether it is a token example with a single span."""
    uniform = uniforms(seed, Stream.OBJECTIVE, example, 2)
    bounds = tf.constant(np.cumsum(config.proportions)[:-1], tf.float64)
    objective = tf.searchsorted(bounds, uniform[:, 0], side="right")
    single_span = uniform[:, 1] < config.single_span_probability
    objective = tf.where(single_span, int(config.first_objective), objective)
    return objective, single_span & tf.equal(objective, int(Objective.TOKEN))
