"""Sampled spans: what holds of every one of them. Their statistics are tested elsewhere."""

from itertools import pairwise

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from glm_jax.data.blanks.config import BlankConfig
from glm_jax.data.blanks.span_lengths import max_num_spans, span_length_distribution
from glm_jax.data.blanks.spans import (
    SamplingSettings,
    SpanTexts,
    in_text_order,
    sample_document_spans,
    sample_sentence_spans,
    sample_token_spans,
)

WIDTH = 64
RUNS = {
    "bert": BlankConfig(),
    "bert_30": BlankConfig(mask_ratio=0.3, mean_span_length=4),
    "single_span": BlankConfig(),
    "sentence": BlankConfig(token=0, sentence=1),
    "gpt": BlankConfig(token=0, document=1),
}


SAMPLERS = {"sentence": sample_sentence_spans, "gpt": sample_document_spans}


def sample(run, texts, lengths, special, sentence_end, seed=11, most=WIDTH):
    rows = SpanTexts(
        tf.constant(texts, tf.int32),
        tf.constant(lengths, tf.int32),
        tf.range(len(texts), dtype=tf.int64),
        tf.fill([len(texts)], most),
        tf.fill([len(texts)], run == "single_span"),
    )
    sampler = SAMPLERS.get(run, sample_token_spans)
    return sampler(rows, SamplingSettings(RUNS[run], special, sentence_end, seed))


def spans_of(sampled, row):
    return [tuple(span) for span in sampled.spans[row, : sampled.num_spans[row]].numpy().tolist()]


def documents_of(text, special):
    """[start, end) of every document's own tokens, found one token at a time."""
    documents, start = [], None
    for place, token in enumerate(text):
        if start is None:
            start = place + (token == special["ENC"])
        if token == special["eos"]:
            documents.append((start, place))
            start = None
    if start is not None:
        documents.append((start, len(text)))
    return documents


def sentences_of(text, special, sentence_end):
    """[start, end) of every sentence, found one token at a time."""
    sentences, start = [], 0
    for place, token in enumerate(text):
        if token == special["ENC"] or token == special["eos"]:
            start = place + 1
        elif sentence_end[token]:
            sentences.append((start, place + 1))
            start = place + 1
    if start < len(text):
        sentences.append((start, len(text)))
    return sentences


@st.composite
def token_texts(draw, length):
    """Texts of documents of 0 to 60 tokens; some begin inside a document."""
    text = [1002]
    while len(text) < length:
        size = draw(st.integers(0, 60))
        text += [*draw(st.lists(st.integers(1, 60), min_size=size, max_size=size)), 1000, 1002]
    return text[:length]


batches_of_texts = st.lists(
    st.tuples(token_texts(length=WIDTH), st.integers(3, WIDTH)), min_size=1, max_size=3
)


@settings(deadline=None, max_examples=60)
@given(
    batches_of_texts,
    st.sampled_from(["bert", "bert_30", "single_span"]),
    st.integers(0, 2**40),
    st.sampled_from([1, 3, WIDTH]),
)
def test_token_spans_keep_apart(special, sentence_end, batch, run, seed, most):
    texts, lengths = zip(*batch, strict=True)
    sampled = sample(run, texts, lengths, special, sentence_end, seed=seed, most=most)
    for row, (text, length) in enumerate(batch):
        documents = documents_of(text[:length], special)
        spans = sorted(spans_of(sampled, row))
        for start, end in spans:
            assert any(first <= start < end <= last for first, last in documents)
            assert end < length
        for (_, end), (start, _) in pairwise(spans):
            assert end < start
        assert len(spans) <= (1 if run == "single_span" else most)
        if len(documents) == 1 and run != "single_span" and most == WIDTH and length > 20:
            covered = sum(end - start for start, end in spans)
            assert covered >= int(RUNS[run].mask_ratio * length)


@settings(deadline=None, max_examples=60)
@given(batches_of_texts, st.integers(0, 2**40), st.sampled_from([1, WIDTH]))
def test_sentence_spans_are_sentences(special, sentence_end, batch, seed, most):
    texts, lengths = zip(*batch, strict=True)
    sampled = sample("sentence", texts, lengths, special, sentence_end, seed=seed, most=most)
    for row, (text, length) in enumerate(batch):
        spans = spans_of(sampled, row)
        assert len(set(spans)) == len(spans) <= most
        documents = documents_of(text[:length], special)
        sentences = sentences_of(text[:length], special, sentence_end)
        for span in spans:
            assert span in sentences
            assert any(first <= span[0] < span[1] <= last for first, last in documents)
        covered = [end - start for start, end in spans]
        goal = max(int(0.15 * length), 1)
        assert sum(covered[:-1]) < goal  # no more sentences than needed
        if most == WIDTH:  # and no fewer, unless the text has no more
            assert sum(covered) >= goal or len(spans) == len(sentences)


@settings(deadline=None, max_examples=60)
@given(batches_of_texts, st.integers(0, 2**40))
def test_document_spans_lie_anywhere_or_at_the_end(special, sentence_end, batch, seed):
    texts, lengths = zip(*batch, strict=True)
    sampled = sample("gpt", texts, lengths, special, sentence_end, seed=seed)
    for row, (text, length) in enumerate(batch):
        ((start, end),) = spans_of(sampled, row)
        tail = bool(sampled.unidirectional[row])
        assert max(int(0.25 * length), 1) <= end - start <= length - 2
        assert start >= 1
        assert end == length if tail else end < length
        if special["eos"] in text[: length - 1]:
            assert tail


def test_document_spans_are_uniform_over_their_places(special, sentence_end):
    texts = [[special["ENC"], *range(1, WIDTH)]] * 6000
    sampled = sample("gpt", texts, [WIDTH] * 6000, special, sentence_end)
    start, end = sampled.spans.numpy()[~sampled.unidirectional.numpy(), 0].T
    within = np.random.default_rng(0).random(len(start))
    place = (start - 1 + within) / (WIDTH - 1 - (end - start))
    assert np.abs(np.histogram(place, 10, (0, 1))[0] / len(place) - 0.1).max() < 0.025


def test_an_example_does_not_depend_on_its_company(special, sentence_end):
    """Neither on the other examples, nor on what lies behind its text."""
    text = [special["ENC"], *range(30, 60), special["eos"], special["ENC"], *range(60, 91)]
    other = [special["ENC"], *[15, special["eos"], special["ENC"]] * 21]
    for run in RUNS:
        alone = sample(run, [text], [50], special, sentence_end)
        together = sample(run, [text[:50] + [15] * 14, other], [50, 64], special, sentence_end)
        assert spans_of(alone, 0) == spans_of(together, 0)


def test_spans_that_do_not_fit_are_dropped(special, sentence_end):
    """Documents of three tokens cannot hold 30% of the text in spans of four."""
    texts = [([special["ENC"], 5, 6, 7, special["eos"]] * 20)[:WIDTH]] * 50
    count = sample("bert_30", texts, [WIDTH] * 50, special, sentence_end).num_spans.numpy()
    assert 0 < count.max() <= 3


def test_blocks_in_the_order_of_the_text(special, sentence_end):
    texts = [[special["ENC"], *range(1, WIDTH)]] * 20
    shuffled = sample("bert_30", texts, [WIDTH] * 20, special, sentence_end)
    ordered = in_text_order(shuffled)
    for row in range(20):
        assert spans_of(ordered, row) == sorted(spans_of(shuffled, row))
    assert any(spans_of(shuffled, row) != sorted(spans_of(shuffled, row)) for row in range(20))


@pytest.mark.parametrize(("mean", "goal"), [(3.0, 70), (3.0, 5), (8.0, 200)])
def test_max_num_spans_is_the_quantile_of_drawn_counts(mean, goal):
    random = np.random.default_rng(5)
    distribution = span_length_distribution(mean, 40)
    drawn = random.choice(np.arange(1, 40), (20_000, goal), p=distribution)
    count = (np.cumsum(drawn, axis=1) < goal).sum(axis=1) + 1
    most = max_num_spans(mean, 40, goal, 0.9)
    assert (count <= most).mean() > 0.9 - 0.01
    assert (count <= most - 1).mean() < 0.9 + 0.01
