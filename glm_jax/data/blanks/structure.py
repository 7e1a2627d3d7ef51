"""Where the documents and the sentences of a text lie."""

from collections.abc import Mapping

import numpy as np
import tensorflow as tf
from jaxtyping import Bool, Int32

_BEYOND = 2**30  # a position beyond every text


def find_documents(
    text: Int32[tf.Tensor, "B T"],
    text_length: Int32[tf.Tensor, "B"],
    special: Mapping[str, int],
) -> tuple[Int32[tf.Tensor, "B documents"], Int32[tf.Tensor, "B documents"]]:
    """The documents of each text, the longest last, as (start, length) of what blanks may cover.

    ENC, eos and the text's last token are never covered. Of equally long documents the later comes
    first, as in the original code. A text with fewer documents than another of the batch has empty
    ones (length -1) in front.
    """
    position = tf.range(tf.shape(text)[1])[None, :]
    end = _positions(tf.equal(text, special["eos"]) & (position < text_length[:, None]))
    end = tf.pad(end, [[0, 0], [0, 1]], constant_values=_BEYOND)
    start = tf.pad(end[:, :-1] + 1, [[0, 0], [1, 0]])
    exists = tf.pad(end[:, :-1], [[0, 0], [1, 0]]) < _BEYOND
    start += _is_token(text, start, special["ENC"])
    length = tf.minimum(end, text_length[:, None] - 1) - start
    length = tf.where(exists, tf.maximum(length, 0), -1)

    number = tf.shape(text)[1] + 1  # sorts by (length, from the last to the first document)
    index = tf.range(tf.shape(end)[1])[None, :]
    order = tf.argsort(length * number - index, axis=1)
    return tf.gather(start, order, batch_dims=1), tf.gather(length, order, batch_dims=1)


def find_sentences(
    text: Int32[tf.Tensor, "B T"],
    text_length: Int32[tf.Tensor, "B"],
    special: Mapping[str, int],
    sentence_end: Bool[np.ndarray, "V"],
) -> tuple[Int32[tf.Tensor, "B N"], Int32[tf.Tensor, "B N"]]:
    """The sentences of each text as [start, end), without ENC and eos, in the order of the text.

    A sentence ends with a sentence end or with the text. Among the sentences, and after them, are
    empty sentences (start = end): what a document has after its last sentence end is no sentence.
    """
    is_eos = tf.equal(text, special["eos"])
    stop = _positions(tf.gather(tf.constant(sentence_end), text) | is_eos)
    stop = tf.pad(stop, [[0, 0], [0, 1]], constant_values=_BEYOND)
    first = tf.pad(stop[:, :-1] + 1, [[0, 0], [1, 0]])
    first += _is_token(text, first, special["ENC"])
    ends_inside = tf.equal(_is_token(text, stop, special["eos"]), 0) & (stop < _BEYOND)
    stop += tf.cast(ends_inside, tf.int32)
    end = text_length[:, None]
    is_sentence = (ends_inside | (stop >= end)) & (first < end)
    return first, tf.where(is_sentence, tf.minimum(stop, end), first)


def _is_token(text: tf.Tensor, position: tf.Tensor, token: int) -> tf.Tensor:
    """1 where the token at `position` [B,N] is `token`, else 0; no token is beyond the text."""
    inside = position < tf.shape(text)[1]
    found = tf.gather(text, tf.where(inside, position, 0), batch_dims=1)
    return tf.cast(inside & tf.equal(found, token), tf.int32)


def _positions(flags: Bool[tf.Tensor, "B T"]) -> Int32[tf.Tensor, "B N"]:
    """The positions of the True values of each row in order; others are _BEYOND."""
    found = tf.where(flags)
    positions = tf.RaggedTensor.from_value_rowids(
        tf.cast(found[:, 1], tf.int32),
        found[:, 0],
        nrows=tf.shape(flags, tf.int64)[0],
        validate=False,  # `where` gives rows in order; assertions are most of the graph
    )
    return positions.to_tensor(default_value=_BEYOND)
