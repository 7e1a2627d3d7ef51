"""Which spans of a text become blanks, drawn as the original code draws them.

The samplers take whole batches and are told the room that text and blanks share: `length` tokens,
of which every span takes `span_cost`. With `span_cost` 2 (a span's mask in Part A and its sop in
Part B) the text is cut so that Part A and Part B fill a sequence of that length exactly; with 0
the text has that length itself, as in the original code, which pads instead.

Random numbers come from `randomness.uniforms`: an example's spans depend on (seed, example) only.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from jaxtyping import Bool, Float64, Int32, Int64

from glm_jax.data.objectives import BlankConfig
from glm_jax.data.randomness import Stream, integers, uniforms
from glm_jax.data.structure import find_documents, find_sentences

SPAN_COST = 2  # positions that a span adds to the sequence: its mask and its sop


class Spans(NamedTuple):
    """The blanks of a batch, as `build_blanks` takes them."""

    text_length: Int32[tf.Tensor, "B"]  # the text is cut to so many tokens
    spans: Int32[tf.Tensor, "B S 2"]  # [start, end), in the order of the blocks
    num_spans: Int32[tf.Tensor, "B"]
    unidirectional: Bool[tf.Tensor, "B"]  # the only span is the text's tail, without eop


def span_length_distribution(mean: float, maximum: int) -> Float64[np.ndarray, "maximum-1"]:
    """Probabilities of the span lengths 1 to maximum - 1: Poisson, renormalised."""
    lengths = range(1, maximum)
    log = [k * math.log(mean) - mean - math.lgamma(k + 1) for k in lengths]
    probability = np.exp(np.asarray(log) - max(log))
    return probability / probability.sum()


def sample_token_spans(
    text: Int32[tf.Tensor, "B T"],
    example: Int64[tf.Tensor, "B"],
    *,
    config: BlankConfig,
    special: Mapping[str, int],
    seed: int,
    length: int,
    span_cost: int = SPAN_COST,
    single_span: Bool[tf.Tensor, "B"] | None = None,
) -> Spans:
    """Token objective: short spans, never across documents, never adjacent.

    Span lengths are drawn until they cover `config.mask_ratio` of the text. Documents are served
    from the shortest to the longest: the shorter ones get spans up to that part of their own
    length, the longest takes the rest, as many as fit (spans that do not fit are dropped, and
    the text gets their room).

    Args:
      text: at least `length` tokens each.
      example: example indices.
      single_span: examples that get one span only.
    """
    drawn, count = _draw_lengths(example, config, seed, length, span_cost)
    if single_span is not None:
        count = tf.where(single_span, 1, count)
    drawn = drawn[:, : tf.reduce_max(tf.concat([count, [1]], 0))]  # as many as any example needs
    number = tf.range(tf.shape(drawn)[1])[None, :]  # [1, S]

    # The stopping rule favours a long last span: the order must be forgotten before placing.
    order = uniforms(seed, Stream.LENGTH_ORDER, example, tf.shape(drawn)[1])
    drawn = _sorted_by(order, number < count[:, None], drawn)

    start, document_length = find_documents(text, length - span_cost * count, special)
    taken_from, taken_to = _share_out(drawn, count, document_length, config.mask_ratio, length)
    placed = taken_to[:, -1]
    start = _place(
        uniforms(seed, Stream.PLACE, example, tf.shape(drawn)[1]),
        drawn, start, document_length, taken_from, taken_to,
    )  # fmt: skip
    order = uniforms(seed, Stream.BLOCK_ORDER, example, tf.shape(drawn)[1])
    spans = tf.stack([start, start + drawn], axis=2)
    spans = _sorted_by(order, number < placed[:, None], spans)
    return Spans(length - span_cost * placed, spans, placed, tf.zeros_like(placed, tf.bool))


def sample_sentence_spans(
    text: Int32[tf.Tensor, "B T"],
    example: Int64[tf.Tensor, "B"],
    *,
    config: BlankConfig,
    special: Mapping[str, int],
    sentence_end: Bool[np.ndarray, "V"],
    seed: int,
    length: int,
    span_cost: int = SPAN_COST,
) -> Spans:
    """Sentence objective: whole sentences in random order until they cover the mask ratio.

    A sentence ends with a token that contains a sentence end, or with the text; what a document
    has after its last sentence end is no sentence. How many sentences are taken and how long the
    text is depend on each other: the number is settled on the longest text first, then the
    text is cut to leave room for so many, and the sentences are taken from the cut text (rarely
    one fewer than the mask ratio asks for).
    """
    first, stop, whole = find_sentences(text, special, sentence_end)
    order = tf.argsort(uniforms(seed, Stream.SENTENCE_ORDER, example, tf.shape(first)[1]), axis=1)
    first, stop, whole = (tf.gather(x, order, batch_dims=1) for x in (first, stop, whole))
    goals = tf.constant(_part(config.mask_ratio, length))

    def take(text_length: tf.Tensor) -> tf.Tensor:
        """The sentences taken from texts of that length: in order until the goal is reached."""
        cut = text_length[:, None]
        size = tf.where(whole | (stop >= cut), tf.minimum(stop, cut) - first, 0)
        size = tf.maximum(size, 0)
        before = tf.cumsum(size, axis=1, exclusive=True)
        return (size > 0) & (before < tf.gather(goals, text_length)[:, None])

    most = _count(take(tf.fill(tf.shape(example), length)))
    taken = take(length - span_cost * most)
    taken &= tf.cumsum(tf.cast(taken, tf.int32), axis=1) <= most[:, None]
    count = _count(taken)
    text_length = length - span_cost * count
    spans = tf.stack([first, tf.minimum(stop, text_length[:, None])], axis=2)
    order = tf.argsort(tf.cast(~taken, tf.int32), axis=1, stable=True)
    spans = tf.gather(spans, order, batch_dims=1)
    spans = spans[:, : tf.reduce_max(tf.concat([count, [1]], 0))]
    return Spans(text_length, spans, count, tf.zeros_like(count, tf.bool))


def sample_document_spans(
    text: Int32[tf.Tensor, "B T"],
    example: Int64[tf.Tensor, "B"],
    *,
    config: BlankConfig,
    special: Mapping[str, int],
    seed: int,
    length: int,
    span_cost: int = SPAN_COST,
) -> Spans:
    """Document objective: one long span, anywhere in the text or its tail.

    Its length is uniform between `config.minimum_document_ratio` of the text and all of it but 2
    tokens. A text of several documents always gives its tail; of the others,
    `config.unidirectional_probability` do.
    """
    uniform = uniforms(seed, Stream.DOCUMENT, example, 3)
    several = tf.reduce_any(tf.equal(text[:, : length - span_cost - 1], special["eos"]), axis=1)
    tail = several | (uniform[:, 0] < config.unidirectional_probability)
    # The tail needs no eop: its sequence is one shorter.
    text_length = length - tf.where(tail, max(span_cost - 1, 0), span_cost)
    shortest = tf.gather(tf.constant(_part(config.minimum_document_ratio, length)), text_length)
    shortest = tf.clip_by_value(shortest, 1, text_length - 2)
    size = shortest + integers(uniform[:, 1], text_length - 1 - shortest)
    anywhere = 1 + integers(uniform[:, 2], text_length - 1 - size)
    start = tf.where(tail, text_length - size, anywhere)
    spans = tf.stack([start, start + size], axis=1)[:, None, :]
    return Spans(text_length, spans, tf.ones_like(size), tail)


def merge_spans(rows: Sequence[Int64[tf.Tensor, "rows"]], parts: Sequence[Spans]) -> Spans:
    """One batch out of parts; `rows[i]` says to which examples of the batch `parts[i]` belongs."""
    most = tf.reduce_max([tf.shape(part.spans)[1] for part in parts])

    def padded(spans: tf.Tensor) -> tf.Tensor:
        missing = most - tf.shape(spans)[1]
        return tf.pad(spans, tf.scatter_nd([[1, 1]], [missing], [3, 2]))

    rows = [tf.cast(row, tf.int32) for row in rows]
    parts = [part._replace(spans=padded(part.spans)) for part in parts]
    return Spans(*(tf.dynamic_stitch(rows, list(field)) for field in zip(*parts, strict=True)))


def _part(ratio: float, length: int) -> Int32[np.ndarray, "length+1"]:
    """int(ratio x n) for texts of n = 0, 1, ..., length tokens, in double precision."""
    return np.array([int(ratio * n) for n in range(length + 1)], dtype=np.int32)


def _draw_lengths(
    example: tf.Tensor, config: BlankConfig, seed: int, length: int, span_cost: int
) -> tuple[tf.Tensor, tf.Tensor]:
    """Span lengths [B,S] and how many of them are needed [B] to reach the mask ratio."""
    goals = _part(config.mask_ratio, length)
    goals = np.array(
        [max(goals[max(length - span_cost * k, 0)], 1) for k in range(1, length + 1)], np.int32
    )
    most = int(np.argmax(np.arange(1, length + 1) >= goals)) + 1  # were all spans one token long
    distribution = span_length_distribution(config.mean_span_length, config.max_span_length)
    uniform = uniforms(seed, Stream.SPAN_LENGTH, example, most)
    drawn = 1 + tf.searchsorted(
        tf.constant(np.cumsum(distribution)[:-1]), tf.reshape(uniform, [-1]), side="right"
    )
    drawn = tf.reshape(drawn, tf.shape(uniform))
    reached = tf.cumsum(drawn, axis=1) >= tf.constant(goals[:most])[None, :]
    count = tf.argmax(tf.cast(reached, tf.int32), axis=1, output_type=tf.int32) + 1
    return drawn, count


def _share_out(
    drawn: tf.Tensor, count: tf.Tensor, document_length: tf.Tensor, ratio: float, length: int
) -> tuple[tf.Tensor, tf.Tensor]:
    """Which of the spans each document takes: from and to [B, documents], spans in list order."""
    is_drawn = tf.range(tf.shape(drawn)[1])[None, :] < count[:, None]
    # Spans that do not count are as long as can be: nobody takes them.
    never = tf.where(is_drawn, drawn, 2 * length + 2)
    covered = tf.pad(tf.cumsum(never, axis=1), [[0, 0], [1, 0]])  # [B, S+1]
    needed = tf.pad(tf.cumsum(never + 1, axis=1), [[0, 0], [1, 0]])
    goals = tf.constant(_part(ratio, length))
    documents = tf.shape(document_length)[1]

    def serve(index: tf.Tensor, first: tf.Tensor, taken: tf.TensorArray) -> tuple:
        available = document_length[:, index]
        # m spans of c tokens with a token between each two need c + m - 1 tokens.
        limit = tf.gather(needed, first[:, None], batch_dims=1) + available[:, None] + 1
        last = tf.searchsorted(needed, limit, side="right")[:, 0] - 1
        share = tf.gather(goals, tf.maximum(available, 0))[:, None]
        limit = tf.gather(covered, first[:, None], batch_dims=1) + share
        within = tf.searchsorted(covered, limit, side="right")[:, 0] - 1
        last = tf.where(index == documents - 1, last, tf.minimum(last, within))
        return index + 1, last, taken.write(index, last)

    _, _, taken = tf.while_loop(
        lambda index, *_: index < documents,
        serve,
        (0, tf.zeros_like(count), tf.TensorArray(tf.int32, documents)),
    )
    to = tf.transpose(taken.stack())
    return tf.pad(to, [[0, 0], [1, 0]])[:, :-1], to


def _place(
    uniform: tf.Tensor,
    drawn: tf.Tensor,
    document_start: tf.Tensor,
    document_length: tf.Tensor,
    taken_from: tf.Tensor,
    taken_to: tf.Tensor,
) -> tf.Tensor:
    """Start of every span [B,S], in random places of its document with a token between spans.

    Each of m spans with c tokens draws a place in [0, length - c - (m - 1)], as the gaps recorded
    from the original show. In ascending order the places are the numbers of text tokens that lie
    before each span, the one token after every span not counted.
    """
    span = tf.range(tf.shape(drawn)[1])[None, :] + tf.zeros_like(drawn)
    document = tf.searchsorted(taken_to, span, side="right")  # beyond all for spans nobody took

    def of_document(values: tf.Tensor) -> tf.Tensor:
        index = tf.minimum(document, tf.shape(values)[1] - 1)
        return tf.gather(values, index, batch_dims=1)

    used = tf.pad(tf.cumsum(drawn + 1, axis=1), [[0, 0], [1, 0]])  # spans and one token after each
    used_by = tf.gather(used, taken_to, batch_dims=1) - tf.gather(used, taken_from, batch_dims=1)
    place = integers(uniform, tf.maximum(of_document(document_length - used_by) + 2, 1))
    # Sorting by (document, place) sorts within documents: they hold consecutive spans.
    bound = tf.reduce_max(document_length) + 2
    place = tf.sort(document * bound + place, axis=1) - document * bound
    before = used[:, :-1] - tf.gather(used, of_document(taken_from), batch_dims=1)
    return of_document(document_start) + place + before


def _count(flags: Bool[tf.Tensor, "B N"]) -> Int32[tf.Tensor, "B"]:
    return tf.reduce_sum(tf.cast(flags, tf.int32), axis=1)


def _sorted_by(order: tf.Tensor, is_used: tf.Tensor, values: tf.Tensor) -> tf.Tensor:
    """`values` [B,S,...] by ascending `order` [B,S], the unused ones last."""
    order = tf.argsort(tf.where(is_used, order, 2.0 + order), axis=1)
    return tf.gather(values, order, batch_dims=1)
