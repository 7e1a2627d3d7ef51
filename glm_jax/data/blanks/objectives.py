"""The objectives of GLM as one table, and what follows from it.

A further objective is a value of `Objective`, its proportion in `BlankConfig`, a sampler, and an
entry of `OBJECTIVES`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import tensorflow as tf
from jaxtyping import Bool, Int32, Int64

from glm_jax.data.blanks.config import SPAN_COST, BlankConfig, Objective, num_sentinels
from glm_jax.data.blanks.span_lengths import max_num_spans
from glm_jax.data.blanks.spans import (
    Sampler,
    sample_document_spans,
    sample_sentence_spans,
    sample_token_spans,
)
from glm_jax.data.randomness import RandomStream, uniforms
from glm_jax.errors import UsageError

_QUANTILE = 0.977  # of the examples keep all spans: two standard deviations above the mean
_SENTENCE_LENGTH = 20  # tokens, in ordinary prose


@dataclass(frozen=True)
class ObjectiveSpec:
    """What distinguishes one objective from another.

    Attributes:
      sample: draws the spans of examples of this objective.
      expected_num_spans: (config, tokens of text) -> spans that nearly every example keeps within.
      task_mask: the mask token of its blanks where `BlankConfig.task_masks` is True.
      has_tails: whether a span may be the text's tail, generated without eop.
    """

    sample: Sampler
    expected_num_spans: Callable[[BlankConfig, int], int]
    task_mask: str
    has_tails: bool = False


def _expected_token_spans(config: BlankConfig, length: int) -> int:
    goal = int(config.mask_ratio * length)
    return max_num_spans(config.mean_span_length, config.max_span_length, goal, _QUANTILE)


def _expected_sentence_spans(config: BlankConfig, length: int) -> int:
    """Sentences of any length: one, and then Poisson."""
    mean = config.sentence_mask_ratio * length / _SENTENCE_LENGTH
    return 1 + round(mean + 2 * mean**0.5)


OBJECTIVES: Mapping[Objective, ObjectiveSpec] = {
    Objective.TOKEN: ObjectiveSpec(sample_token_spans, _expected_token_spans, "MASK"),
    Objective.SENTENCE: ObjectiveSpec(sample_sentence_spans, _expected_sentence_spans, "sMASK"),
    Objective.DOCUMENT: ObjectiveSpec(
        sample_document_spans, lambda config, length: 1, "gMASK", has_tails=True
    ),
}


def expected_text_length(objective: Objective, config: BlankConfig, sequence_length: int) -> int:
    """Tokens of text with which an example fills the sequence, nearly always without dropped spans.

    Every span takes two further positions, its mask and its sop, and the number of spans is
    drawn: where they are fewer than expected here, the sequence ends with padding.

    Args:
      sequence_length: L, Part A and Part B together.
    """
    if config.masked_lm and objective == Objective.TOKEN:
        return sequence_length
    expected_num_spans = OBJECTIVES[objective].expected_num_spans
    length = sequence_length - SPAN_COST
    while length > 1 and length + SPAN_COST * expected_num_spans(config, length) > sequence_length:
        length -= 1
    return length


def draw_objectives(
    example: Int64[tf.Tensor, "B"], config: BlankConfig, seed: int
) -> tuple[Int32[tf.Tensor, "B"], Bool[tf.Tensor, "B"]]:
    """The objective of each example, and whether it is a token example with a single span."""
    uniform = uniforms(seed, RandomStream.OBJECTIVE, example, 2)
    bounds = tf.constant(np.cumsum([*config.proportions.values()])[:-1], tf.float64)
    index = tf.searchsorted(bounds, uniform[:, 0], side="right")
    objective = tf.gather(tf.constant([*map(int, config.proportions)], tf.int32), index)
    single_span = uniform[:, 1] < config.single_span_probability
    objective = tf.where(single_span, int(config.first_objective), objective)
    return objective, single_span & tf.equal(objective, int(Objective.TOKEN))


def mask_ids(config: BlankConfig, special: Mapping[str, int]) -> tuple[int, ...]:
    """The mask token of each objective, by the value of `Objective`; MASK where none is used.

    Raises:
      UsageError: task masks are requested, but the tokenizer has none.
    """
    names = ["MASK"] * len(Objective)
    if config.task_masks:
        for objective, spec in OBJECTIVES.items():
            names[objective] = spec.task_mask
    for name in names:
        if name not in special:
            raise UsageError(
                f"blanks.task_masks is True, but the tokenizer has no token {name}; "
                "expected one made with task_mask=True."
            )
    return tuple(special[name] for name in names)


def check_special(config: BlankConfig, special: Mapping[str, int]) -> None:
    """Raises UsageError if the tokenizer lacks a token that these blanks need."""
    mask_ids(config, special)
    for name in ("block_mask_probability", "context_mask_ratio"):
        if getattr(config, name) > 0 and "dBLOCK" not in special:
            raise UsageError(
                f"blanks.{name} is above 0, but the tokenizer has no token dBLOCK; "
                "expected one made with decoder_mask=True."
            )
    if config.sentinels and not num_sentinels(special):
        raise UsageError(
            "blanks.sentinels is True, but the tokenizer has no token MASK1; "
            "expected one made with sentinels."
        )
