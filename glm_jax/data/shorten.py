"""Examples of a random piece of their text (the original's `short_seq_prob`).

The original cuts all samples of a batch to pieces of one length, several of each sample where they
fit, and so trains on a larger batch of shorter sequences. Here every batch has one shape: an
example is shortened by itself, and what it does not fill is padding. The examples are the same; a
batch of the original holds more of them.
"""

from collections.abc import Mapping

import numpy as np
import tensorflow as tf
from jaxtyping import Bool, Int32, Int64

from glm_jax.data.randomness import Stream, integers, uniforms

_SHORTEST = 32  # tokens of a piece, as in the original


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
    """Texts and their lengths, of which some are cut to a piece.

    A piece's length is drawn uniformly from 32 to `sequence_length` - 2 tokens. It begins at a
    random place, moved back to the beginning of its sentence, and ends with a sentence if one ends
    in it. Like every text it begins with ENC.
    """
    uniform = uniforms(seed, Stream.SHORT_SEQUENCE, example, 3)
    size = _SHORTEST + integers(uniform[:, 1], max(sequence_length - 1 - _SHORTEST, 1))
    is_short = (uniform[:, 0] < probability) & (size < text_length - 1)
    row = tf.where(is_short)[:, 0]
    size, length, uniform = (tf.gather(x, row) for x in (size, text_length, uniform))
    short = tf.gather(text, row)

    place = tf.range(tf.shape(text)[1])[None, :]
    ends = tf.gather(tf.constant(sentence_end), short) | tf.equal(short, special["eos"])
    ends |= tf.equal(place, 0)  # of ENC
    start = 1 + integers(uniform[:, 2], length - size)
    start = _last(ends & (place < start[:, None]), place) + 1
    start += tf.cast(tf.equal(tf.gather(short, start, batch_dims=1), special["ENC"]), tf.int32)
    stop = tf.minimum(start + size, length)
    sentence = _last(ends & (place >= start[:, None]) & (place < stop[:, None]), place) + 1
    stop = tf.where(sentence > start, sentence, stop)

    source = tf.minimum(start[:, None] + place - 1, tf.shape(text)[1] - 1)
    piece = tf.gather(short, tf.maximum(source, 0), batch_dims=1)
    piece = tf.where(tf.equal(place, 0), special["ENC"], piece)
    text = tf.tensor_scatter_nd_update(text, row[:, None], piece)
    return text, tf.tensor_scatter_nd_update(text_length, row[:, None], stop - start + 1)


def _last(flags: tf.Tensor, place: tf.Tensor) -> tf.Tensor:
    """The last place of each row where the flag is set; 0 where none is."""
    return tf.reduce_max(tf.where(flags, place, 0), axis=1)
