"""Which spans of a text become blanks, drawn as the original code draws them.

The samplers take batches, in which every text has its own length. Random numbers come
from `randomness.uniforms`: an example's spans depend on its text, the seed and its index only.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, cast

import numpy as np
import tensorflow as tf
from jaxtyping import Bool, Int32, Int64

from glm_jax.data.blanks.config import BlankConfig
from glm_jax.data.blanks.span_lengths import span_length_distribution
from glm_jax.data.blanks.structure import find_documents, find_sentences
from glm_jax.data.randomness import RandomStream, integers, uniforms


class Spans(NamedTuple):
    """The blanks of a batch, as `build_blanks` takes them."""

    spans: Int32[tf.Tensor, "B S 2"]  # [start, end), in the order of the blocks
    num_spans: Int32[tf.Tensor, "B"]
    unidirectional: Bool[tf.Tensor, "B"]  # the only span is the text's tail, without eop


class SpanTexts(NamedTuple):
    """The texts of a batch that one sampler draws spans of."""

    text: Int32[tf.Tensor, "B T"]  # T is static
    text_length: Int32[tf.Tensor, "B"]  # tokens of each text
    example: Int64[tf.Tensor, "B"]  # example indices
    max_spans: Int32[tf.Tensor, "B"]  # that the sequence has room for
    single_span: Bool[tf.Tensor, "B"]  # examples that get one span only (token objective)


@dataclass(frozen=True)
class SamplingSettings:
    """What is the same for all examples of a run.

    Attributes:
      config: ratios and lengths of spans.
      special: ids of the special tokens.
      sentence_end: by token id, whether it ends a sentence.
      seed: the run's data seed.
    """

    config: BlankConfig
    special: Mapping[str, int]
    sentence_end: Bool[np.ndarray, "V"]
    seed: int


Sampler = Callable[[SpanTexts, SamplingSettings], Spans]


def sample_token_spans(texts: SpanTexts, settings: SamplingSettings) -> Spans:
    """Token objective: short spans, never across documents, never adjacent.

    Span lengths are drawn until they cover `config.mask_ratio` of the text (a text too short for
    that gets one span). Documents are served from the shortest to the longest: the shorter ones
    get spans up to that part of their own length, the longest takes the rest, as many as fit.
    Spans that do not fit, and those beyond `max_spans`, are dropped.
    """
    text, text_length, example, max_spans, single_span = texts
    config, special, seed = settings.config, settings.special, settings.seed
    drawn, count = _draw_lengths(text, text_length, example, config, seed)
    count = tf.minimum(tf.where(single_span, 1, count), max_spans)
    drawn = drawn[:, : tf.reduce_max(tf.concat([count, [1]], 0))]  # as many as any example needs
    number = tf.range(tf.shape(drawn)[1])[None, :]  # [1, S]

    # The stopping rule favours a long last span: the order must be discarded before placing.
    order = uniforms(seed, RandomStream.LENGTH_ORDER, example, tf.shape(drawn)[1])
    drawn = _sorted_by(order, number < count[:, None], drawn)

    start, document_length = find_documents(text, text_length, special)
    taken_from, taken_to = _share_out(drawn, count, document_length, config.mask_ratio, text)
    placed = taken_to[:, -1]
    start = _span_starts(
        uniforms(seed, RandomStream.SPAN_POSITION, example, tf.shape(drawn)[1]),
        drawn, start, document_length, taken_from, taken_to,
    )  # fmt: skip
    order = uniforms(seed, RandomStream.BLOCK_ORDER, example, tf.shape(drawn)[1])
    spans = tf.stack([start, start + drawn], axis=2)
    spans = _sorted_by(order, number < placed[:, None], spans)
    return Spans(spans, placed, tf.zeros_like(placed, tf.bool))


def sample_sentence_spans(texts: SpanTexts, settings: SamplingSettings) -> Spans:
    """Sentence objective: complete sentences in random order until they cover their mask ratio.

    A sentence ends with a token that contains a sentence end, or with the text; what a document
    has after its last sentence end is no sentence.
    """
    text, text_length, example, max_spans, _ = texts
    config, seed = settings.config, settings.seed
    first, stop = find_sentences(text, text_length, settings.special, settings.sentence_end)
    order = tf.argsort(
        uniforms(seed, RandomStream.SENTENCE_ORDER, example, tf.shape(first)[1]), axis=1
    )
    first, stop = tf.gather(first, order, batch_dims=1), tf.gather(stop, order, batch_dims=1)
    size = stop - first
    before = tf.cumsum(size, axis=1, exclusive=True)
    goal = _part(config.sentence_mask_ratio, text, text_length)
    taken = (size > 0) & (before < tf.maximum(goal, 1)[:, None])
    taken &= tf.cumsum(tf.cast(taken, tf.int32), axis=1) <= max_spans[:, None]
    count = tf.reduce_sum(tf.cast(taken, tf.int32), axis=1)
    order = tf.argsort(tf.cast(~taken, tf.int32), axis=1, stable=True)
    spans = tf.gather(tf.stack([first, stop], axis=2), order, batch_dims=1)
    spans = spans[:, : tf.reduce_max(tf.concat([count, [1]], 0))]
    return Spans(spans, count, tf.zeros_like(count, tf.bool))


def sample_document_spans(texts: SpanTexts, settings: SamplingSettings) -> Spans:
    """Document objective: one long span, anywhere in the text or its tail.

    Its length is uniform between `config.minimum_document_ratio` of the text and all of it but 2
    tokens. A text of several documents always gives its tail; of the others,
    `config.unidirectional_probability` do. Texts have at least 3 tokens.
    """
    text, text_length, example = texts.text, texts.text_length, texts.example
    config, special = settings.config, settings.special
    uniform = uniforms(settings.seed, RandomStream.DOCUMENT, example, 3)
    inner = tf.range(tf.shape(text)[1])[None, :] < text_length[:, None] - 1
    several = tf.reduce_any(tf.equal(text, special["eos"]) & inner, axis=1)
    tail = several | (uniform[:, 0] < config.unidirectional_probability)
    min_size = _part(config.minimum_document_ratio, text, text_length)
    min_size = tf.clip_by_value(min_size, 1, text_length - 2)
    size = min_size + integers(uniform[:, 1], text_length - 1 - min_size)
    anywhere = 1 + integers(uniform[:, 2], text_length - 1 - size)
    start = tf.where(tail, text_length - size, anywhere)
    spans = tf.stack([start, start + size], axis=1)[:, None, :]
    return Spans(spans, tf.ones_like(size), tail)


def merge_spans(rows: Sequence[Int64[tf.Tensor, "_"]], parts: Sequence[Spans]) -> Spans:
    """One batch out of parts; `rows[i]` says to which examples of the batch `parts[i]` belongs."""
    max_spans = tf.reduce_max([tf.shape(part.spans)[1] for part in parts])

    def padded(spans: tf.Tensor) -> tf.Tensor:
        missing = max_spans - tf.shape(spans)[1]
        return tf.pad(spans, tf.scatter_nd([[1, 1]], [missing], [3, 2]))

    rows = [tf.cast(row, tf.int32) for row in rows]
    parts = [part._replace(spans=padded(part.spans)) for part in parts]
    return Spans(*(tf.dynamic_stitch(rows, list(field)) for field in zip(*parts, strict=True)))


def in_text_order(chosen: Spans) -> Spans:
    """The same blanks, their blocks in the order of the text (ablation of shuffled blocks)."""
    number = tf.range(tf.shape(chosen.spans)[1])[None, :]
    start = tf.cast(chosen.spans[:, :, 0], tf.float64)
    scale = tf.cast(tf.reduce_max(chosen.spans) + 1, tf.float64)
    is_used = number < chosen.num_spans[:, None]
    return chosen._replace(spans=_sorted_by(start / scale, is_used, chosen.spans))


def _part(ratio: float, text: tf.Tensor, length: tf.Tensor) -> tf.Tensor:
    """int(ratio x length), in double precision; no length is greater than the texts' width."""
    return tf.gather(tf.constant([int(ratio * n) for n in range(_width(text) + 1)]), length)


def _width(text: tf.Tensor) -> int:
    """T, which is static."""
    return cast(int, text.shape[1])


def _draw_lengths(
    text: tf.Tensor, text_length: tf.Tensor, example: tf.Tensor, config: BlankConfig, seed: int
) -> tuple[tf.Tensor, tf.Tensor]:
    """Span lengths [B,S] and how many of them are needed [B] to reach the mask ratio."""
    goal = tf.maximum(_part(config.mask_ratio, text, text_length), 1)
    max_spans = max(int(config.mask_ratio * _width(text)), 1)  # were all spans one token long
    distribution = span_length_distribution(config.mean_span_length, config.max_span_length)
    uniform = uniforms(seed, RandomStream.SPAN_LENGTH, example, max_spans)
    drawn = 1 + tf.searchsorted(
        tf.constant(np.cumsum(distribution)[:-1]), tf.reshape(uniform, [-1]), side="right"
    )
    drawn = tf.reshape(drawn, tf.shape(uniform))
    reached = tf.cumsum(drawn, axis=1) >= goal[:, None]
    count = tf.argmax(tf.cast(reached, tf.int32), axis=1, output_type=tf.int32) + 1
    return drawn, count


def _share_out(
    drawn: tf.Tensor, count: tf.Tensor, document_length: tf.Tensor, ratio: float, text: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Which of the spans each document takes: from and to [B, documents], spans in list order."""
    is_drawn = tf.range(tf.shape(drawn)[1])[None, :] < count[:, None]
    # Spans that do not count are as long as can be: nobody takes them.
    never = tf.where(is_drawn, drawn, 2 * _width(text) + 2)
    covered = tf.pad(tf.cumsum(never, axis=1), [[0, 0], [1, 0]])  # [B, S+1]
    needed = tf.pad(tf.cumsum(never + 1, axis=1), [[0, 0], [1, 0]])
    shares = _part(ratio, text, tf.maximum(document_length, 0))
    documents = tf.shape(document_length)[1]

    def serve(index: tf.Tensor | int, first: tf.Tensor, taken: tf.TensorArray) -> tuple:
        # m spans of c tokens with a token between each two need c + m - 1 tokens.
        limit = tf.gather(needed, first, batch_dims=1) + document_length[:, index] + 1
        last = tf.searchsorted(needed, limit[:, None], side="right")[:, 0] - 1
        limit = tf.gather(covered, first, batch_dims=1) + shares[:, index]
        within = tf.searchsorted(covered, limit[:, None], side="right")[:, 0] - 1
        last = tf.where(index == documents - 1, last, tf.minimum(last, within))
        return index + 1, last, taken.write(index, last)

    _, _, taken = tf.while_loop(
        lambda index, *_: index < documents,
        serve,
        (0, tf.zeros_like(count), tf.TensorArray(tf.int32, documents)),
    )
    to = tf.transpose(taken.stack())
    return tf.pad(to, [[0, 0], [1, 0]])[:, :-1], to


def _span_starts(
    uniform: tf.Tensor,
    drawn: tf.Tensor,
    document_start: tf.Tensor,
    document_length: tf.Tensor,
    taken_from: tf.Tensor,
    taken_to: tf.Tensor,
) -> tf.Tensor:
    """Start of every span [B,S], at random positions of its document with a token between spans.

    Each of m spans with c tokens draws a position in [0, length - c - (m - 1)], as the gaps
    recorded from the original show. In ascending order the positions are the numbers of text tokens
    before each span, the one token after every span not counted.
    """
    span = tf.range(tf.shape(drawn)[1])[None, :] + tf.zeros_like(drawn)
    document = tf.searchsorted(taken_to, span, side="right")  # beyond all for spans nobody took

    def of_document(values: tf.Tensor) -> tf.Tensor:
        index = tf.minimum(document, tf.shape(values)[1] - 1)
        return tf.gather(values, index, batch_dims=1)

    used = tf.pad(tf.cumsum(drawn + 1, axis=1), [[0, 0], [1, 0]])  # spans and one token after each
    used_by = tf.gather(used, taken_to, batch_dims=1) - tf.gather(used, taken_from, batch_dims=1)
    position = integers(uniform, tf.maximum(of_document(document_length - used_by) + 2, 1))
    # Sorting by (document, position) sorts within documents: they hold consecutive spans.
    bound = tf.reduce_max(document_length) + 2
    position = tf.sort(document * bound + position, axis=1) - document * bound
    before = used[:, :-1] - tf.gather(used, of_document(taken_from), batch_dims=1)
    return of_document(document_start) + position + before


def _sorted_by(order: tf.Tensor, is_used: tf.Tensor, values: tf.Tensor) -> tf.Tensor:
    """`values` [B,S,...] by ascending `order` [B,S] in [0, 1), the unused ones last."""
    order = tf.argsort(tf.where(is_used, order, 2.0 + order), axis=1)
    return tf.gather(values, order, batch_dims=1)
