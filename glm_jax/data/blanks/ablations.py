"""What the smaller settings of the original change in examples that are built already.

Each function takes the arrays of `build_blanks` and returns those that it changes.
"""

from collections.abc import Mapping

import numpy as np
import tensorflow as tf
from jaxtyping import Bool, Float64, Int32, Int64

from glm_jax.data.blanks.build import Blanks
from glm_jax.data.randomness import RandomStream, integers, uniforms


def without_block_positions(blanks: Blanks) -> Blanks:
    """The second row of positions says only whether a token is in Part B (one-dimensional)."""
    position, block_position = tf.unstack(blanks["position_ids"], axis=1)
    block_position = tf.minimum(block_position, 1)
    return {"position_ids": tf.stack([position, block_position], axis=1)}


def at_one_position(
    blanks: Blanks, shared: int, unchanged: Bool[tf.Tensor, "B"] | None = None
) -> Blanks:
    """All of Part B at one position: sentinels identify the mask that its tokens fill.

    Args:
      shared: the position, behind those of every text; the original takes the sequence's length.
      unchanged: examples whose positions stay.
    """
    position, block_position = tf.unstack(blanks["position_ids"], axis=1)
    moved = block_position > 0
    if unchanged is not None:
        moved &= tf.logical_not(unchanged)[:, None]
    return {"position_ids": tf.stack([tf.where(moved, shared, position), block_position], axis=1)}


def with_positions_from(blanks: Blanks, first: Int32[tf.Tensor, "B"]) -> Blanks:
    """Positions that start at `first` instead of 0."""
    position, block_position = tf.unstack(blanks["position_ids"], axis=1)
    index = tf.range(tf.shape(position)[1])[None, :]
    is_used = (index < blanks["prefix_length"][:, None]) | (block_position > 0)
    position += tf.where(is_used, first[:, None], 0)
    return {"position_ids": tf.stack([position, block_position], axis=1)}


def draw_first_position(
    uniform: Float64[tf.Tensor, "B"], prefix_length: Int32[tf.Tensor, "B"], num_positions: int
) -> Int32[tf.Tensor, "B"]:
    """The first position, uniform over the values that keep Part A below `num_positions`.

    As recorded from the original: positions of the last token of Part A reach `num_positions` - 1
    or, where the sequence has no room to move, stay.
    """
    return integers(uniform, tf.maximum(num_positions - prefix_length + 1, 1))


def near_blanks(blanks: Blanks, mask_range: int) -> Bool[tf.Tensor, "B L"]:
    """Indices of Part A within `mask_range` of a mask on either side, or of Part A's end.

    As the indices recorded from the original show. Masks themselves are not among them.
    """
    position, block_position = tf.unstack(blanks["position_ids"], axis=1)
    index = tf.range(tf.shape(position)[1])[None, :]
    rows = tf.range(tf.shape(position)[0])[:, None] + tf.zeros_like(index)
    in_prefix = index < blanks["prefix_length"][:, None]
    is_block_start = tf.equal(block_position, 1)
    indices = tf.stack([rows[is_block_start], position[is_block_start]], axis=1)
    is_mask = tf.scatter_nd(indices, tf.ones_like(indices[:, 0]), tf.shape(position)) > 0
    is_border = is_mask | tf.equal(index, blanks["prefix_length"][:, None])
    width = tf.shape(position)[1]
    near = tf.zeros_like(is_mask)
    for distance in range(1, mask_range + 1):
        near |= tf.pad(is_border[:, distance:], [[0, 0], [0, distance]])[:, :width]
        near |= tf.pad(is_mask[:, :-distance], [[0, 0], [distance, 0]])[:, :width]
    return near & in_prefix & ~is_mask


def hide(
    blanks: Blanks,
    candidate: Bool[tf.Tensor, "B L"],
    count: Int32[tf.Tensor, "B"],
    uniform: Float64[tf.Tensor, "B L"],
    hidden_id: int,
) -> Blanks:
    """`count` of the candidate indices, or all where there are fewer, show `hidden_id`.

    The targets keep the tokens.
    """
    chance = tf.where(candidate, uniform, 2.0)
    rank = tf.argsort(tf.argsort(chance, axis=1), axis=1)
    chosen = candidate & (rank < count[:, None])
    return {"tokens": tf.where(chosen, hidden_id, blanks["tokens"])}


_MIN_PIECE_LENGTH = 32  # tokens of a piece, as in the original


def shorten_texts(
    text: Int32[tf.Tensor, "B T"],
    text_length: Int32[tf.Tensor, "B"],
    example: Int64[tf.Tensor, "B"],
    *,
    probability: float,
    special: Mapping[str, int],
    sentence_end: Bool[np.ndarray, "V"],
    sequence_length: int,
    seed: int,
) -> tuple[Int32[tf.Tensor, "B T"], Int32[tf.Tensor, "B"]]:
    """Texts and their lengths, some of them shortened to a piece.

    A piece's length is drawn uniformly from 32 to `sequence_length` - 2 tokens. It starts at a
    random index, moved back to the start of its sentence, and ends with the last sentence that ends
    in it if that leaves at least half of it. Like every text it starts with ENC.
    """
    uniform = uniforms(seed, RandomStream.SHORT_SEQUENCE, example, 3)
    size = _MIN_PIECE_LENGTH + integers(
        uniform[:, 1], max(sequence_length - 1 - _MIN_PIECE_LENGTH, 1)
    )
    is_short = (uniform[:, 0] < probability) & (size < text_length - 1)
    row = tf.where(is_short)[:, 0]
    size, length, uniform = (tf.gather(x, row) for x in (size, text_length, uniform))
    short = tf.gather(text, row)

    index = tf.range(tf.shape(text)[1])[None, :]
    ends = tf.gather(tf.constant(sentence_end), short) | tf.equal(short, special["eos"])
    ends |= tf.equal(index, 0)  # of ENC
    start = 1 + integers(uniform[:, 2], length - size)
    start = _last(ends & (index < start[:, None]), index) + 1
    start += tf.cast(tf.equal(tf.gather(short, start, batch_dims=1), special["ENC"]), tf.int32)
    stop = tf.minimum(start + size, length)
    sentence = _last(ends & (index >= start[:, None]) & (index < stop[:, None]), index) + 1
    stop = tf.where(sentence - start >= size // 2, sentence, stop)

    source = tf.minimum(start[:, None] + index - 1, tf.shape(text)[1] - 1)
    piece = tf.gather(short, tf.maximum(source, 0), batch_dims=1)
    piece = tf.where(tf.equal(index, 0), special["ENC"], piece)
    text = tf.tensor_scatter_nd_update(text, row[:, None], piece)
    return text, tf.tensor_scatter_nd_update(text_length, row[:, None], stop - start + 1)


def _last(flags: tf.Tensor, index: tf.Tensor) -> tf.Tensor:
    """The last index of each row where the flag is set; 0 where none is."""
    return tf.reduce_max(tf.where(flags, index, 0), axis=1)
