"""Chosen spans -> Part A and Part B with their positions and targets (contract C3).

GLM paper, section 2.1, and what the original code records for given spans. Sampling the spans is
`spans.py`'s work. Everything is computed for a batch in one pass: the few spans of each example
divide its sequence into segments, and every index of the sequence is looked up in its segment.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import tensorflow as tf
from jaxtyping import Bool, Integer

Blanks = dict[str, tf.Tensor]

_BEYOND = 2**30  # an index beyond every text


class _Parts(NamedTuple):
    """How Part A and Part B lie in the sequence.

    `source` [B,L] is the index of each target in the concatenation of the text, the masks of its
    blocks and eop. `block` [B,L] is the block of each index of Part B.
    """

    source: tf.Tensor
    block: tf.Tensor
    prefix_length: tf.Tensor  # [B]
    mask_index: tf.Tensor  # [B, S+1], of each block's mask in Part A
    block_end: tf.Tensor  # [B, S+1]


def build_blanks(
    text: Integer[Any, "B T"] | Sequence,
    text_length: Integer[Any, "B"] | Sequence,
    spans: Integer[Any, "B S 2"] | Sequence,
    num_spans: Integer[Any, "B"] | Sequence,
    *,
    mask_id: Integer[Any, "B S"] | Integer[Any, "B"] | Sequence | int,
    sop: Integer[Any, "_"] | Sequence[int] | int,
    eop: int,
    sequence_length: int,
    unidirectional: Bool[Any, "B"] | Sequence | None = None,
    text_loss_mask: Bool[Any, "B T"] | Integer[Any, "B T"] | Sequence | None = None,
    block_masked: Bool[Any, "B L"] | Integer[Any, "B L"] | Sequence | None = None,
    block_mask_id: int | None = None,
) -> Blanks:
    """Part A with each span replaced by one mask, then Part B with the spans to be generated.

    Position row 0 is the index in Part A; tokens of Part B carry the index of their mask. Row 1
    is 0 in Part A and 1, 2, ..., length + 1 inside a block. What does not fill the sequence is
    padding at its end: id 0, target 0, loss 0, positions 0.

    Arrays may be of TensorFlow or numpy, or lists.

    Args:
      text: tokens; what lies beyond `text_length` is not looked at.
      text_length: number of tokens of each text.
      spans: [start, end) in the text, in the order of the blocks of Part B; spans are not empty
        and do not overlap, but may touch.
      num_spans: how many of `spans` count.
      mask_id: the mask token of each block, or one for all blocks of an example, or one for all.
      sop: start-of-piece token of each block, or one for all. eop: end-of-piece token.
      sequence_length: L. An example that needs more is truncated to L.
      unidirectional: examples whose only span is the text's tail, generated without eop
        (document objective). Only here `text_loss_mask` counts.
      text_loss_mask: 0 for text tokens that are not learned, 1 for the rest.
      block_masked: indices of the sequence where the input of Part B, unless it is sop, is
        `block_mask_id` (dBLOCK).

    Returns:
      tokens, targets [B,L] int32, loss_mask [B,L] float32, position_ids [B,2,L] int32 and
      prefix_length [B] int32, the length of Part A.
    """
    tokens, text_length = _tensor(text, tf.int32), _tensor(text_length, tf.int32)
    start, length, is_span = _padded_spans(spans, num_spans)
    parts = _segments(text_length, start, length, is_span, sequence_length, tf.shape(tokens)[1])
    masks = _per_block(mask_id, tf.shape(start))
    source = tf.concat([tokens, masks, tf.fill([tf.shape(tokens)[0], 1], eop)], axis=1)
    block_start = _take(parts.block_end - length - 1, parts.block)
    block_sop = (
        sop if isinstance(sop, int) else tf.gather(_tensor([*sop, 0], tf.int32), parts.block)
    )
    tails = None if unidirectional is None else _tensor(unidirectional, tf.bool)
    if block_masked is not None:
        assert block_mask_id is not None, "block_masked needs the token that replaces the input"
        block_masked = _tensor(block_masked, tf.bool)
    return _from_segments(
        parts, source, block_start, block_sop, tails, text_loss_mask, block_masked, block_mask_id
    )


def _from_segments(
    parts: _Parts,
    source: tf.Tensor,
    block_start: tf.Tensor,
    block_sop: tf.Tensor | int,
    tails: tf.Tensor | None,
    text_loss_mask: Any,
    block_masked: tf.Tensor | None,
    block_mask_id: int | None,
) -> Blanks:
    """The arrays of `build_blanks`, every index of the sequence looked up in its segment.

    Args:
      source: what targets are taken from: the text, the masks of its blocks, and eop.
      block_start, block_sop: of the block of each index, where its input begins and with what.
      tails: as `unidirectional` of `build_blanks`; so are the arguments after it.
    """
    index = tf.range(tf.shape(parts.source)[1], dtype=tf.int32)[None, :]  # [1, L]
    end = parts.block_end[:, -1]
    if tails is not None:  # the position that would learn eop is left out
        end -= tf.cast(tails, tf.int32)
    in_prefix = index < parts.prefix_length[:, None]
    in_text = index < end[:, None]
    targets = tf.where(in_text, _take(source, parts.source), 0)

    inputs = tf.pad(targets[:, :-1], [[0, 0], [1, 0]])  # a block's input is its target before
    if block_masked is not None:
        inputs = tf.where(block_masked, block_mask_id, inputs)
    inputs = tf.where(tf.equal(index, block_start), block_sop, inputs)

    learned = in_text & tf.logical_not(in_prefix)
    if tails is not None and text_loss_mask is not None:
        text_learned = tf.not_equal(_take(_tensor(text_loss_mask, tf.int32), parts.source), 0)
        learned &= text_learned | tf.logical_not(tails)[:, None]

    position = tf.where(in_prefix, index, _take(parts.mask_index, parts.block))
    block_position = tf.where(in_prefix, 0, index - block_start + 1)
    positions = tf.stack([position, block_position], axis=1)
    return {
        "tokens": tf.where(in_prefix, targets, tf.where(in_text, inputs, 0)),
        "targets": targets,
        "loss_mask": tf.cast(learned, tf.float32),
        "position_ids": tf.where(in_text[:, None, :], positions, 0),
        "prefix_length": parts.prefix_length,
    }


def mask_spans(
    text: Integer[Any, "B T"] | Sequence,
    text_length: Integer[Any, "B"] | Sequence,
    spans: Integer[Any, "B S 2"] | Sequence,
    num_spans: Integer[Any, "B"] | Sequence,
    *,
    mask_id: int,
    sequence_length: int,
    text_loss_mask: Bool[Any, "B T"] | Integer[Any, "B T"] | Sequence | None = None,
) -> Blanks:
    """The text with every token of the spans masked, to be predicted in place (masked LM).

    There is no Part B: all of the text is Part A, and the second row of positions is 0. Arguments
    and result are those of `build_blanks`, but here `text_loss_mask` counts for every example.
    """
    tokens, text_length = _tensor(text, tf.int32), _tensor(text_length, tf.int32)
    start, length, _ = _padded_spans(spans, num_spans)
    order = tf.argsort(start, axis=1, stable=True)
    start, length = (tf.gather(x, order, batch_dims=1) for x in (start, length))
    index = tf.range(sequence_length, dtype=tf.int32)[None, :]
    borders = _interleaved(start, start + length)
    passed = tf.searchsorted(borders, _rows(index, tokens), side="right")
    masked = tf.equal(passed % 2, 1)
    in_text = index < text_length[:, None]
    targets = tf.where(in_text, _take(tokens, _rows(index, tokens)), 0)
    position = tf.where(in_text, index, 0)
    masked &= in_text
    learned = masked
    if text_loss_mask is not None:
        text_learned = _take(_tensor(text_loss_mask, tf.int32), _rows(index, tokens))
        learned &= tf.not_equal(text_learned, 0)
    return {
        "tokens": tf.where(masked, mask_id, targets),
        "targets": targets,
        "loss_mask": tf.cast(learned, tf.float32),
        "position_ids": tf.stack([position, tf.zeros_like(position)], axis=1),
        "prefix_length": text_length,
    }


def _segments(
    text_length: tf.Tensor,
    start: tf.Tensor,
    length: tf.Tensor,
    is_span: tf.Tensor,
    sequence_length: int,
    text_width: tf.Tensor,
) -> _Parts:
    """Cuts the sequence into segments: text, mask, text, mask, ..., block, eop, block, eop, ..."""
    max_spans = tf.shape(start)[1]  # S + 1
    prefix_length = text_length - tf.reduce_sum(tf.where(is_span, length - 1, 0), axis=1)
    border = prefix_length[:, None]

    order = tf.argsort(start, axis=1, stable=True)
    in_text_order = tf.gather(start, order, batch_dims=1)
    # A span of n tokens moves everything after its mask n - 1 indices to the left.
    moves = tf.gather(tf.where(is_span, length - 1, 0), order, batch_dims=1)
    moved = tf.cumsum(moves, axis=1, exclusive=True)
    masks = in_text_order - moved  # ascending; those of unused spans lie beyond the sequence
    mask_index = tf.gather(masks, tf.argsort(order, axis=1), batch_dims=1)

    block_end = border + tf.cumsum(tf.where(is_span, length + 1, 0), axis=1)
    eop_index = block_end - tf.cast(is_span, tf.int32)
    ends = tf.concat(
        [
            _interleaved(tf.minimum(masks, border), tf.minimum(masks + 1, border)),
            _interleaved(eop_index, block_end),
        ],
        axis=1,
    )
    to_source = tf.concat(
        [
            _interleaved(moved, text_width + order - masks),
            _interleaved(start - block_end + length + 1, text_width + max_spans - eop_index),
            tf.zeros_like(border),
        ],
        axis=1,
    )
    index = _rows(tf.range(sequence_length, dtype=tf.int32)[None, :], start)
    segment = tf.searchsorted(ends, index, side="right")  # [B, L]
    block = tf.minimum(tf.maximum(segment // 2 - max_spans, 0), max_spans - 1)
    return _Parts(index + _take(to_source, segment), block, prefix_length, mask_index, block_end)


def _padded_spans(spans: Any, num_spans: Any) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """start, length and is_span, [B, S+1] each.

    One unused span is added at the end, for indices after the last block. Unused spans
    are empty and lie beyond every text, so that they sort last.
    """
    padded = tf.pad(_tensor(spans, tf.int32), [[0, 0], [0, 1], [0, 0]])
    is_span = tf.range(tf.shape(padded)[1])[None, :] < _tensor(num_spans, tf.int32)[:, None]
    start = tf.where(is_span, padded[:, :, 0], _BEYOND)
    length = tf.where(is_span, padded[:, :, 1] - padded[:, :, 0], 0)
    return start, length, is_span


def _per_block(ids: Any, shape: tf.Tensor) -> tf.Tensor:
    """One id, or one for each example, or one for each block, as [B, S+1]."""
    ids = _tensor(ids, tf.int32)
    if ids.shape.rank == 2:
        return tf.pad(ids, [[0, 0], [0, 1]])
    return tf.broadcast_to(ids[:, None] if ids.shape.rank == 1 else ids, shape)


def _interleaved(left: tf.Tensor, right: tf.Tensor) -> tf.Tensor:
    """left[0], right[0], left[1], right[1], ... of each row, [B, 2N]."""
    return tf.reshape(tf.stack([left, right], axis=2), [tf.shape(left)[0], -1])


def _tensor(values: Any, dtype: tf.DType) -> tf.Tensor:
    """Arrays, lists and tensors of any integer type as tensors."""
    return cast(tf.Tensor, tf.cast(values, dtype))


def _rows(row: tf.Tensor, like: tf.Tensor) -> tf.Tensor:
    """A row [1, N] for every example of `like` [B, ...]."""
    return tf.repeat(row, tf.shape(like)[0], axis=0)


def _take(values: tf.Tensor, index: tf.Tensor) -> tf.Tensor:
    """values[b, index[b, i]]; an index outside is moved to the edge (its value is not used)."""
    width = tf.shape(values)[1]
    index = tf.clip_by_value(index, 0, width - 1)
    # Flat indices are faster than those of a batch.
    rows = tf.range(tf.shape(values)[0])[:, None] * width
    return tf.gather(tf.reshape(values, [-1]), index + rows)
