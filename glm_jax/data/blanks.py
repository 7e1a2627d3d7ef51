"""Chosen spans -> Part A and Part B with their positions and targets (contract C3).

GLM paper, section 2.1, and what the original code records for given spans. Sampling the spans is
`spans.py`'s work. Everything is computed for a whole batch at once, by sorting the few spans of
each example and looking up, for every position of the output, the span it lies at.
"""

from typing import Any, cast

import tensorflow as tf
from jaxtyping import Bool, Int32

Blanks = dict[str, tf.Tensor]

_BEYOND = 2**30  # a place beyond every text


def build_blanks(
    text: Int32[Any, "B T"],
    text_length: Int32[Any, "B"],
    spans: Int32[Any, "B S 2"],
    num_spans: Int32[Any, "B"],
    *,
    mask_id: Int32[Any, "B"] | int,
    sop: int,
    eop: int,
    sequence_length: int,
    unidirectional: Bool[Any, "B"] | None = None,
    text_loss_mask: Bool[Any, "B T"] | Int32[Any, "B T"] | None = None,
    block_masked: Bool[Any, "B T"] | None = None,
    block_mask_id: int | None = None,
) -> Blanks:
    """Part A with each span replaced by one mask, then Part B with the spans to be generated.

    Position row 0 is the place in Part A, where tokens of Part B carry their mask's place; row 1
    is 0 in Part A and 1, 2, ..., length + 1 inside a block. What does not fill the sequence is
    padding at its end: id 0, target 0, loss 0, positions 0.

    Arrays may be of TensorFlow or numpy, or lists.

    Args:
      text: tokens; what lies beyond `text_length` is not looked at.
      text_length: number of tokens of each text.
      spans: [start, end) in the text, in the order of the blocks of Part B; spans are not empty
        and do not overlap, but may touch.
      num_spans: how many of `spans` count.
      mask_id: the mask token of each example, or one for all.
      sop: start-of-piece token. eop: end-of-piece token.
      sequence_length: L. An example that needs more is cut off at L.
      unidirectional: examples whose only span is the text's tail, generated without eop
        (document objective). Only here `text_loss_mask` counts.
      text_loss_mask: 0 for text tokens that are not learned, 1 for the rest.
      block_masked: text tokens that Part B's input shows as `block_mask_id` (dBLOCK).

    Returns:
      tokens, targets [B,L] int32, loss_mask [B,L] float32, position_ids [B,2,L] int32 and
      prefix_length [B] int32, the length of Part A.
    """
    tokens, text_length = _tensor(text, tf.int32), _tensor(text_length, tf.int32)
    masks = tf.broadcast_to(_tensor(mask_id, tf.int32), tf.shape(text_length))
    place = tf.range(sequence_length, dtype=tf.int32)[None, :]  # [1, L]
    start, length, is_span = _padded_spans(spans, num_spans)
    masked = tf.reduce_sum(length, 1)
    prefix_length = text_length - masked + tf.reduce_sum(tf.cast(is_span, tf.int32), 1)
    mask_place, prefix_text, is_mask = _part_a(start, length, is_span, place)
    block, offset, end = _part_b(length, is_span, place - prefix_length[:, None])
    end += prefix_length
    if unidirectional is not None:  # the position that would learn eop is left out
        end -= _tensor(unidirectional, tf.int32)

    in_prefix = place < prefix_length[:, None]
    in_text = place < end[:, None]
    # Where in the text the target of each position stands, if it is a token of the text.
    target_text = tf.where(in_prefix, prefix_text, _take(start, block) + offset)
    is_eop = tf.equal(offset, _take(length, block))
    in_place_of_text = tf.where(in_prefix, masks[:, None], eop)
    targets = tf.where(
        tf.where(in_prefix, is_mask, is_eop), in_place_of_text, _take(tokens, target_text)
    )
    block_input = tokens
    if block_masked is not None:
        assert block_mask_id is not None, "block_masked needs the token to put in place"
        block_input = tf.where(_tensor(block_masked, tf.bool), block_mask_id, tokens)
    inputs = tf.where(tf.equal(offset, 0), sop, _take(block_input, target_text - 1))
    learned = tf.ones_like(targets)
    if unidirectional is not None and text_loss_mask is not None:
        text_learned = _take(_tensor(text_loss_mask, tf.int32), target_text)
        learned = tf.where(_tensor(unidirectional, tf.bool)[:, None], text_learned, learned)

    position = tf.where(in_prefix, place, _take(mask_place, block))
    block_position = tf.where(in_prefix, 0, offset + 1)
    return {
        "tokens": tf.where(in_text, tf.where(in_prefix, targets, inputs), 0),
        "targets": tf.where(in_text, targets, 0),
        "loss_mask": tf.cast(tf.where(in_prefix, 0, tf.where(in_text, learned, 0)), tf.float32),
        "position_ids": tf.where(
            in_text[:, None, :], tf.stack([position, block_position], axis=1), 0
        ),
        "prefix_length": prefix_length,
    }


def _tensor(values: Any, dtype: tf.DType) -> tf.Tensor:
    """Arrays, lists and tensors of any integer type as tensors."""
    return cast(tf.Tensor, tf.cast(values, dtype))


def _take(values: tf.Tensor, index: tf.Tensor) -> tf.Tensor:
    """values[b, index[b, i]]; an index outside is moved to the edge (its value is not used)."""
    index = tf.clip_by_value(index, 0, tf.shape(values)[1] - 1)
    return tf.gather(values, index, batch_dims=1)


def _padded_spans(spans: Any, num_spans: Any) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """start, length and is_span, [B, S+1] each.

    One unused span is added at the end, for positions after the last block to fall on. Unused
    spans are empty and lie beyond every text, so that they sort last.
    """
    padded = tf.pad(_tensor(spans, tf.int32), [[0, 0], [0, 1], [0, 0]])
    is_span = tf.range(tf.shape(padded)[1])[None, :] < _tensor(num_spans, tf.int32)[:, None]
    start = tf.where(is_span, padded[:, :, 0], _BEYOND)
    length = tf.where(is_span, padded[:, :, 1] - padded[:, :, 0], 0)
    return start, length, is_span


def _part_a(
    start: tf.Tensor, length: tf.Tensor, is_span: tf.Tensor, place: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Where Part A's masks are, and what lies at each of its places.

    Returns:
      mask_place [B,S+1]: the place of each span's mask; text_place [B,L]: the token of the text
      at each place; is_mask [B,L].
    """
    order = tf.argsort(start, axis=1, stable=True)
    in_text_order = tf.gather(start, order, batch_dims=1)
    # A span of n tokens moves everything after its mask n - 1 places to the left.
    moved = tf.gather(tf.where(is_span, length - 1, 0), order, batch_dims=1)
    moved = tf.cumsum(moved, axis=1)
    masks = in_text_order - tf.pad(moved, [[0, 0], [1, 0]])[:, :-1]  # [B, S+1], ascending
    batch = tf.shape(start)[0]
    places = tf.repeat(place, batch, axis=0)
    masks_before = tf.searchsorted(masks, places, side="left")  # [B, L]
    text_place = place + _take(tf.pad(moved, [[0, 0], [1, 0]]), masks_before)
    is_mask = tf.equal(_take(masks, masks_before), place)
    mask_place = tf.gather(masks, tf.argsort(order, axis=1), batch_dims=1)
    return mask_place, text_place, is_mask


def _part_b(
    length: tf.Tensor, is_span: tf.Tensor, place: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Which block each place lies in; `place` [B,L] counts from the start of Part B.

    Returns:
      block [B,L]: index of the span; offset [B,L]: place inside the block; end [B]: length of
      Part B.
    """
    block_length = tf.where(is_span, length + 1, 0)
    block_end = tf.cumsum(block_length, axis=1)
    block = tf.searchsorted(block_end, place, side="right")
    offset = place - _take(block_end - block_length, block)
    return block, offset, block_end[:, -1]
