"""What a batch is (contract C1), and how one is made of texts."""

from collections.abc import Mapping
from typing import cast

import numpy as np
import tensorflow as tf
from jaxtyping import Bool, Int32, Int64

from glm_jax.data.blanks import build_blanks
from glm_jax.data.objectives import BlankConfig, Objective
from glm_jax.data.randomness import Stream, uniforms
from glm_jax.data.spans import (
    Spans,
    merge_spans,
    sample_document_spans,
    sample_sentence_spans,
    sample_token_spans,
)

Batch = dict[str, np.ndarray]  # tokens, targets, loss_mask, position_ids, prefix_length, objective


def make_batch(
    text: Int32[tf.Tensor, "B L"],
    example: Int64[tf.Tensor, "B"],
    *,
    config: BlankConfig,
    special: Mapping[str, int],
    sentence_end: Bool[np.ndarray, "V"],
    seed: int,
) -> dict[str, tf.Tensor]:
    """A batch in the form of contract C1 from texts as long as the sequence.

    Each example gets an objective by the configured proportions and its blanks; the text's end is
    cut off so that Part A and Part B fill the sequence exactly.

    Args:
      text: begins with ENC and holds whole documents, but for its first and last.
      example: example indices; an example depends on its text, `seed` and its index only.
      sentence_end: by token id, whether it ends a sentence.
    """
    length = cast(int, text.shape[1])
    objective, single_span = draw_objectives(example, config, seed)
    chosen = _sample_spans(
        text, example, objective, single_span,
        config=config, special=special, sentence_end=sentence_end, seed=seed,
    )  # fmt: skip
    block_masked = None
    if config.block_mask_probability > 0:
        uniform = uniforms(seed, Stream.BLOCK_MASK, example, length)
        block_masked = uniform < config.block_mask_probability
        block_masked &= tf.equal(objective, int(Objective.TOKEN))[:, None]
    batch = build_blanks(
        text,
        chosen.text_length,
        chosen.spans,
        chosen.num_spans,
        mask_id=tf.gather(tf.constant(config.mask_ids(special), tf.int32), objective),
        sop=special["sop"],
        eop=special["eop"],
        sequence_length=length,
        unidirectional=chosen.unidirectional,
        text_loss_mask=tf.not_equal(text, special["ENC"]),
        block_masked=block_masked,
        block_mask_id=special.get("dBLOCK"),
    )
    return {**batch, "objective": objective}


def draw_objectives(
    example: Int64[tf.Tensor, "B"], config: BlankConfig, seed: int
) -> tuple[Int32[tf.Tensor, "B"], Bool[tf.Tensor, "B"]]:
    """The objective of each example, and whether it is a token example with a single span."""
    uniform = uniforms(seed, Stream.OBJECTIVE, example, 2)
    bounds = tf.constant(np.cumsum(config.proportions)[:-1], tf.float64)
    objective = tf.searchsorted(bounds, uniform[:, 0], side="right")
    single_span = uniform[:, 1] < config.single_span_probability
    return tf.where(single_span, int(Objective.TOKEN), objective), single_span


def _sample_spans(
    text: tf.Tensor,
    example: tf.Tensor,
    objective: tf.Tensor,
    single_span: tf.Tensor,
    *,
    config: BlankConfig,
    special: Mapping[str, int],
    sentence_end: np.ndarray,
    seed: int,
) -> Spans:
    """The blanks of every example by its own objective, each sampler run on its own examples."""
    settings = {"config": config, "special": special, "seed": seed, "length": text.shape[1]}
    rows, parts = [], []
    for kind, share in zip(Objective, config.proportions, strict=False):
        if share == 0 and not (kind == Objective.TOKEN and config.single_span_probability > 0):
            continue
        row = tf.where(tf.equal(objective, int(kind)))[:, 0]
        texts, examples = tf.gather(text, row), tf.gather(example, row)
        rows.append(row)
        if kind == Objective.TOKEN:
            single = tf.gather(single_span, row)
            parts.append(sample_token_spans(texts, examples, single_span=single, **settings))
        elif kind == Objective.SENTENCE:
            parts.append(
                sample_sentence_spans(texts, examples, sentence_end=sentence_end, **settings)
            )
        else:
            parts.append(sample_document_spans(texts, examples, **settings))
    return merge_spans(rows, parts)
