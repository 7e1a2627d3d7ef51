"""Sampled spans against the recorded statistics of the original, and their invariants."""

import json
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2_contingency

from glm_jax.data.objectives import BlankConfig
from glm_jax.data.spans import (
    sample_document_spans,
    sample_sentence_spans,
    sample_token_spans,
    span_length_distribution,
)

SAMPLES = 12_000
LENGTH = 128
# A fair sampler fails one comparison in 20,000; seeds are fixed, so a passing one keeps passing.
SIGNIFICANCE = 5e-5

RUNS = {
    "bert": BlankConfig(),
    "bert_30": BlankConfig(mask_ratio=0.3, mean_span_length=4),
    "single_span": BlankConfig(),
    "sentence": BlankConfig(token=0, sentence=1),
    "gpt": BlankConfig(token=0, document=1),
}


@pytest.fixture(scope="module")
def statistics(shared):
    return json.loads((shared / "goldens" / "d_blocks" / "statistics.json").read_text())


@pytest.fixture(scope="module")
def stats_samples(shared):
    return json.loads((shared / "goldens" / "d_blocks" / "stats_samples.json").read_text())


def agreement(recorded, ours, calls_per_count=1):
    """The p-value of two histograms having one distribution; rare values are put together."""
    values = sorted({int(value) for value in recorded} | set(ours))
    table = np.array(
        [
            [recorded.get(str(value), 0) / calls_per_count for value in values],
            [ours.get(value, 0) for value in values],
        ]
    )
    share = table.sum(axis=1).min() / table.sum()
    columns, gathered = [], np.zeros(2)
    for column in table.T:
        gathered = gathered + column
        if gathered.sum() * share >= 8:
            columns.append(gathered)
            gathered = np.zeros(2)
    columns[-1] = columns[-1] + gathered
    if len(columns) == 1:  # one value only, on both sides
        return 1.0
    return chi2_contingency(np.array(columns).T).pvalue


def histograms(sampled):
    """The histograms of statistics.json, by name."""
    found = {
        name: Counter()
        for name in (
            "span_length", "num_spans", "gap_first", "gap_between", "gap_last", "masked_tokens",
            "span_start", "target_tokens", "index_of_first_block",
        )
    }  # fmt: skip
    for spans, count in zip(sampled.spans.numpy(), sampled.num_spans.numpy(), strict=True):
        first = spans[0, 0]
        spans = spans[:count][np.argsort(spans[:count, 0])]
        lengths = spans[:, 1] - spans[:, 0]
        found["span_length"].update(lengths.tolist())
        found["span_start"].update(spans[:, 0].tolist())
        found["gap_between"].update((spans[1:, 0] - spans[:-1, 1]).tolist())
        found["num_spans"][int(count)] += 1
        found["gap_first"][int(spans[0, 0])] += 1
        found["gap_last"][LENGTH - int(spans[-1, 1])] += 1
        found["masked_tokens"][int(lengths.sum())] += 1
        found["target_tokens"][int(lengths.sum() + count)] += 1
        found["index_of_first_block"][int(np.flatnonzero(spans[:, 0] == first)[0])] += 1
    return found


def sample(run, texts, special, sentence_end, **arguments):
    config = RUNS[run]
    example = tf.range(len(texts), dtype=tf.int64)
    arguments = {"config": config, "special": special, "seed": 11, **arguments}
    text = tf.constant(texts, tf.int32)
    if run == "sentence":
        return sample_sentence_spans(text, example, sentence_end=sentence_end, **arguments)
    if run == "gpt":
        return sample_document_spans(text, example, **arguments)
    single = tf.fill([len(texts)], run == "single_span")
    return sample_token_spans(text, example, single_span=single, **arguments)


def rotated(stats_samples, documents):
    texts = np.array([sample["text"] for sample in stats_samples[documents]])
    return texts[np.arange(SAMPLES) % len(texts)]


@pytest.mark.parametrize("documents", ["one_doc", "multi_doc"])
@pytest.mark.parametrize("run", ["bert", "bert_30", "single_span", "sentence"])
def test_recorded_histograms(statistics, stats_samples, special, sentence_end, run, documents):
    texts = rotated(stats_samples, documents)
    sampled = sample(run, texts, special, sentence_end, length=LENGTH, span_cost=0)
    assert (sampled.text_length.numpy() == LENGTH).all()
    recorded = statistics[f"{run}/{documents}"]
    found = histograms(sampled)
    agreements = {
        name: agreement(recorded[f"{name}_hist"], found[name])
        for name in found
        if recorded[f"{name}_hist"]
    }
    assert min(agreements.values()) > SIGNIFICANCE, agreements
    masked = sum(tokens * count for tokens, count in found["masked_tokens"].items())
    assert masked / SAMPLES / LENGTH == pytest.approx(recorded["mean_masked_fraction"], rel=0.02)


@pytest.mark.parametrize("documents", ["one_doc", "multi_doc"])
def test_recorded_generation_lengths(statistics, stats_samples, special, sentence_end, documents):
    texts = rotated(stats_samples, documents)
    sampled = sample("gpt", texts, special, sentence_end, length=LENGTH, span_cost=0)
    recorded = statistics[f"gpt/{documents}"]
    start, end = sampled.spans.numpy()[:, 0].T
    # One length was recorded for all four samples of a call.
    lengths = Counter((end - start).tolist())
    assert agreement(recorded["generation_length_hist"], lengths, 4) > SIGNIFICANCE
    tail = sampled.unidirectional.numpy()
    by_call = recorded["gpt_unidirectional_samples_per_call_hist"]
    recorded_tails = sum(int(tails) * calls for tails, calls in by_call.items())
    assert tail.mean() == pytest.approx(recorded_tails / 6000, abs=0.025)
    assert (end[tail] == LENGTH).all()
    assert (start >= 1).all() and (end[~tail] <= LENGTH - 1).all()
    if documents == "one_doc":  # anywhere: uniform over the places that there are
        place = (start[~tail] - 0.5) / (LENGTH - 1 - (end - start)[~tail])
        assert np.abs(np.histogram(place, 10, (0, 1))[0] / (~tail).sum() - 0.1).max() < 0.02


def test_span_length_table(statistics):
    recorded = np.array(statistics["block_length_distribution_avg3_max40"])
    ours = span_length_distribution(3, 40)
    np.testing.assert_allclose(ours, recorded / recorded.sum(), rtol=1e-9)


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


batches_of_texts = st.lists(token_texts(length=64), min_size=1, max_size=3)


@settings(deadline=None, max_examples=60)
@given(batches_of_texts, st.sampled_from(["bert", "bert_30", "single_span"]), st.integers(0, 2**40))
def test_token_spans_keep_apart(special, sentence_end, texts, run, seed):
    sampled = sample(run, texts, special, sentence_end, length=64, seed=seed)
    for i, text in enumerate(texts):
        count, length = int(sampled.num_spans[i]), int(sampled.text_length[i])
        assert length + 2 * count == 64
        documents = documents_of(text[:length], special)
        spans = sorted(map(tuple, sampled.spans[i, :count].numpy().tolist()))
        for start, end in spans:
            assert any(first <= start < end <= last for first, last in documents)
            assert end < length
        for (_, end), (start, _) in pairwise(spans):
            assert end < start
        if run == "single_span":
            assert count <= 1
        if len(documents) == 1 and run != "single_span":
            ratio = RUNS[run].mask_ratio
            covered = sum(end - start for start, end in spans)
            assert covered >= int(ratio * length)


@settings(deadline=None, max_examples=60)
@given(batches_of_texts, st.integers(0, 2**40))
def test_sentence_spans_are_sentences(special, sentence_end, texts, seed):
    sampled = sample("sentence", texts, special, sentence_end, length=64, seed=seed)
    for i, text in enumerate(texts):
        count, length = int(sampled.num_spans[i]), int(sampled.text_length[i])
        assert length + 2 * count == 64
        spans = [tuple(span) for span in sampled.spans[i, :count].numpy().tolist()]
        assert len(set(spans)) == count
        documents = documents_of(text[:length], special)
        for start, end in spans:
            assert any(first <= start < end <= last for first, last in documents)
            ends = (start, end) in sentences_of(text[:length], special, sentence_end)
            # A fragment that the cut made may reach the end of its document.
            assert ends or any(end == last for _, last in documents)


@settings(deadline=None, max_examples=60)
@given(batches_of_texts, st.integers(0, 2**40))
def test_no_more_sentences_than_needed_in_texts_that_are_not_cut(
    special, sentence_end, texts, seed
):
    # Where the text is cut to fill the sequence, another sentence may step in for one cut off.
    sampled = sample("sentence", texts, special, sentence_end, length=64, span_cost=0, seed=seed)
    for i in range(len(texts)):
        spans = sampled.spans[i, : int(sampled.num_spans[i])].numpy().tolist()
        assert sum(end - start for start, end in spans[:-1]) < int(0.15 * 64)


@settings(deadline=None, max_examples=60)
@given(batches_of_texts, st.integers(0, 2**40))
def test_document_spans_fill_the_sequence(special, sentence_end, texts, seed):
    sampled = sample("gpt", texts, special, sentence_end, length=64, seed=seed)
    for i, text in enumerate(texts):
        length, tail = int(sampled.text_length[i]), bool(sampled.unidirectional[i])
        ((start, end),) = sampled.spans[i].numpy().tolist()
        assert int(sampled.num_spans[i]) == 1
        assert length + 2 - tail == 64
        assert int(0.25 * length) <= end - start <= length - 2
        assert start >= 1
        assert end == length if tail else end < length
        if special["eos"] in text[:61]:
            assert tail


def test_spans_that_do_not_fit_are_dropped_without_padding(special, sentence_end):
    """Documents of three tokens cannot hold 30% of the text in spans of four."""
    texts = [([1002, 5, 6, 7, 1000] * 20)[:64]] * 50
    sampled = sample("bert_30", texts, special, sentence_end, length=64)
    text_length, count = sampled.text_length.numpy(), sampled.num_spans.numpy()
    assert (text_length + 2 * count == 64).all()
    assert 0 < count.max() <= 3
