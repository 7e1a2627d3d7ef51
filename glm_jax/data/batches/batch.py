"""What a batch is (contract C1), and how one is made of texts."""

from collections.abc import Mapping

import numpy as np
import tensorflow as tf
from jaxtyping import Bool, Int32, Int64

from glm_jax.data.blanks import ablations
from glm_jax.data.blanks.ablations import shorten_texts
from glm_jax.data.blanks.build import Blanks, build_blanks, mask_spans
from glm_jax.data.blanks.config import SPAN_COST, BlankConfig, Objective, num_sentinels
from glm_jax.data.blanks.objectives import OBJECTIVES, mask_ids
from glm_jax.data.blanks.spans import (
    SamplingSettings,
    Spans,
    SpanTexts,
    in_text_order,
    merge_spans,
)
from glm_jax.data.randomness import RandomStream, uniforms

Batch = dict[str, np.ndarray]  # tokens, targets, loss_mask, position_ids, prefix_length, objective


def make_batch(
    text: Int32[tf.Tensor, "B T"],
    text_length: Int32[tf.Tensor, "B"],
    example: Int64[tf.Tensor, "B"],
    objective: Int32[tf.Tensor, "B"],
    single_span: Bool[tf.Tensor, "B"],
    *,
    config: BlankConfig,
    special: Mapping[str, int],
    sentence_end: Bool[np.ndarray, "V"],
    sequence_length: int,
    seed: int,
) -> dict[str, tf.Tensor]:
    """A batch in the form of contract C1: Part A and Part B of every text, then padding.

    The blanks are drawn for exactly that text, but never more of them than the sequence has room
    for. A text that leaves no room for one is truncated.

    Args:
      text: starts with ENC; T is static.
      text_length: how many tokens of each row the example has.
      example: example indices; an example depends on its text, `seed` and its index only.
      objective, single_span: of each example, as `draw_objectives` gives them.
      sentence_end: by token id, whether it ends a sentence.
      sequence_length: L.
    """
    if config.short_sequence_probability > 0:
        text, text_length = shorten_texts(
            text, text_length, example,
            probability=config.short_sequence_probability, special=special,
            sentence_end=sentence_end, sequence_length=sequence_length, seed=seed,
        )  # fmt: skip
    is_masked = tf.equal(objective, int(Objective.TOKEN)) & config.masked_lm
    room = sequence_length - tf.where(is_masked, 0, SPAN_COST)
    text_length = tf.minimum(text_length, room)
    max_spans = tf.where(is_masked, sequence_length, (sequence_length - text_length) // SPAN_COST)
    if config.sentinels:
        max_spans = tf.minimum(max_spans, num_sentinels(special) + 1)
    chosen = _sample_spans(
        SpanTexts(text, text_length, example, max_spans, single_span),
        objective,
        SamplingSettings(config, special, sentence_end, seed),
    )
    if not config.shuffle_blocks:
        chosen = in_text_order(chosen)
    settings = {"config": config, "special": special, "sequence_length": sequence_length}
    blanks = _build(text, text_length, chosen, example, objective, seed=seed, **settings)
    blanks = _ablated(blanks, text_length, chosen, example, seed=seed, **settings)
    if config.masked_lm:
        masked = mask_spans(
            text, text_length, chosen.spans, chosen.num_spans,
            mask_id=special["MASK"], sequence_length=sequence_length,
        )  # fmt: skip
        blanks = {name: _choose(is_masked, masked[name], blanks[name]) for name in blanks}
    return {**blanks, "objective": objective}


def _sample_spans(
    texts: SpanTexts, objective: Int32[tf.Tensor, "B"], settings: SamplingSettings
) -> Spans:
    """The blanks of every example by its own objective, each sampler run on its own examples."""
    rows, parts = [], []
    for kind, share in settings.config.proportions.items():
        if share == 0:
            continue
        row = tf.where(tf.equal(objective, int(kind)))[:, 0]
        rows.append(row)
        of_kind = SpanTexts(*(tf.gather(values, row) for values in texts))
        parts.append(OBJECTIVES[kind].sample(of_kind, settings))
    return merge_spans(rows, parts)


def _build(
    text: tf.Tensor,
    text_length: tf.Tensor,
    chosen: Spans,
    example: tf.Tensor,
    objective: tf.Tensor,
    *,
    config: BlankConfig,
    special: Mapping[str, int],
    sequence_length: int,
    seed: int,
) -> Blanks:
    """Part A and Part B with the tokens that the settings ask for."""
    mask_id = tf.gather(tf.constant(mask_ids(config, special), tf.int32), objective)
    sop: int | list[int] = special["sop"]
    if config.sentinels:
        mask_id, sop = _sentinel_ids(special, mask_id, tf.shape(chosen.spans)[1])
    block_masked = None
    if config.block_mask_probability > 0:
        uniform = uniforms(seed, RandomStream.BLOCK_MASK, example, sequence_length)
        block_masked = uniform < config.block_mask_probability
        block_masked &= tf.equal(objective, int(Objective.TOKEN))[:, None]
    has_tails = any(
        OBJECTIVES[kind].has_tails for kind, share in config.proportions.items() if share > 0
    )
    return build_blanks(
        text,
        text_length,
        chosen.spans,
        chosen.num_spans,
        mask_id=mask_id,
        sop=sop,
        eop=special["eop"],
        sequence_length=sequence_length,
        unidirectional=chosen.unidirectional if has_tails else None,
        text_loss_mask=tf.not_equal(text, special["ENC"]) if has_tails else None,
        block_masked=block_masked,
        block_mask_id=special.get("dBLOCK"),
    )


def _sentinel_ids(
    special: Mapping[str, int], mask_id: tf.Tensor, num_blocks: tf.Tensor
) -> tuple[tf.Tensor, list[int]]:
    """The masks [B,S] and sops of the blocks: the first block has the usual ones."""
    numbers = range(1, num_sentinels(special) + 1)
    masks = tf.constant([special["MASK"], *(special[f"MASK{i}"] for i in numbers)], tf.int32)
    others = tf.repeat(masks[None, 1:num_blocks], tf.shape(mask_id)[0], axis=0)
    return (
        tf.concat([mask_id[:, None], others], axis=1),
        [special["sop"], *(special[f"sop{i}"] for i in numbers)],
    )


def _ablated(
    blanks: Blanks,
    text_length: tf.Tensor,
    chosen: Spans,
    example: tf.Tensor,
    *,
    config: BlankConfig,
    special: Mapping[str, int],
    sequence_length: int,
    seed: int,
) -> Blanks:
    """The settings that change examples after they are built, where they are on.

    As in the original, tails have ordinary positions and complete contexts.
    """
    if config.context_mask_ratio > 0:
        near = ablations.near_blanks(blanks, config.context_mask_range)
        count = tf.cast(tf.cast(text_length, tf.float64) * config.context_mask_ratio, tf.int32)
        count = tf.where(chosen.unidirectional, 0, count)
        uniform = uniforms(seed, RandomStream.CONTEXT_MASK, example, sequence_length)
        blanks = blanks | ablations.hide(blanks, near, count, uniform, special["dBLOCK"])
    if config.random_position:
        first = ablations.draw_first_position(
            uniforms(seed, RandomStream.FIRST_POSITION, example, 1)[:, 0],
            blanks["prefix_length"],
            sequence_length,
        )
        first = tf.where(chosen.unidirectional, 0, first)
        blanks = blanks | ablations.with_positions_from(blanks, first)
    if config.sentinels:
        tails = chosen.unidirectional
        blanks = blanks | ablations.at_one_position(blanks, sequence_length, tails)
    if not config.block_positions:
        blanks = blanks | ablations.without_block_positions(blanks)
    return blanks


def _choose(flags: tf.Tensor, left: tf.Tensor, right: tf.Tensor) -> tf.Tensor:
    """Examples [B,...] of `left` where the flag [B] is set, else of `right`."""
    shape = tf.concat([tf.shape(flags), tf.ones([tf.rank(left) - 1], tf.int32)], axis=0)
    return tf.where(tf.reshape(flags, shape), left, right)


def empty_supervised(number: int, length: int) -> Batch:
    """Rows of contract C1 without tokens, with objective OTHER."""
    return {
        "tokens": np.zeros((number, length), np.int32),
        "targets": np.zeros((number, length), np.int32),
        "loss_mask": np.zeros((number, length), np.float32),
        "position_ids": np.zeros((number, 2, length), np.int32),
        "prefix_length": np.zeros(number, np.int32),
        "objective": np.full(number, int(Objective.OTHER), np.int32),
    }
