"""Which part of the stream each example is made from."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from glm_jax.data.blanks.config import BlankConfig
from glm_jax.data.order.epochs import EpochOrder, EpochTexts, read_windows
from glm_jax.data.order.texts import PythonCalls
from glm_jax.errors import UsageError

MIXED = BlankConfig(token=0.5, sentence=0.3, document=0.2, single_span_probability=0.05)


def make_order(num_tokens=10_037, blanks=MIXED, sequence_length=64, seed=3):
    return EpochOrder(num_tokens, blanks, sequence_length=sequence_length, seed=seed)


def windows(order, examples):
    return [values.numpy() for values in order.windows(tf.constant(examples, tf.int64))]


@settings(deadline=None, max_examples=40)
@given(
    st.integers(0, 20_000),
    st.integers(-(2**40), 2**63),
    st.integers(0, 2**20),
    st.sampled_from([16, 64, 512]),
    st.tuples(*[st.floats(0, 1)] * 3).filter(lambda shares: sum(shares) > 1e-3),
    st.sampled_from([0.0, 0.05, 0.5]),
)
def test_an_epoch_has_each_token_exactly_once(more, seed, epoch, length, shares, single):
    token, sentence, document = shares
    blanks = BlankConfig(
        token=token, sentence=sentence, document=document, single_span_probability=single
    )
    num_tokens = length + more
    order = make_order(num_tokens, blanks, length, seed)
    first = epoch * order.num_windows
    start, size, _, _ = windows(order, np.arange(first, first + order.num_windows))
    place = np.repeat(start - np.cumsum(size) + size, size) + np.arange(size.sum())
    assert len(place) == num_tokens
    np.testing.assert_array_equal(np.sort(place % num_tokens), np.arange(num_tokens))


@settings(deadline=None, max_examples=15)
@given(
    st.integers(1, 40), st.integers(1, 300), st.integers(0, 5000), st.integers(0, 1000), st.data()
)
def test_the_texts_of_an_epoch_are_the_split(make_split, special, shortest, more, size, seed, data):
    """Their texts joined are the ring, but for the ENC of windows that begin inside a document."""
    split = make_split(64 + size, shortest, shortest + more, seed)
    order = make_order(split.num_tokens, seed=seed)
    epoch = data.draw(st.integers(0, 1000))
    examples = np.arange(epoch * order.num_windows, (epoch + 1) * order.num_windows)
    source = EpochTexts(split, order, enc=special["ENC"])
    texts = source(tf.constant(examples), PythonCalls())
    text, length = texts.text.numpy(), texts.length.numpy()
    start, size, _, _ = windows(order, examples)
    assert np.all(text[:, 0] == special["ENC"])
    inside = split.ids[start] != special["ENC"]
    np.testing.assert_array_equal(length, size + inside)
    kept = [row[added:n] for row, added, n in zip(text, inside.astype(int), length, strict=True)]
    stream = np.concatenate([kept[i] for i in np.argsort(start, kind="stable")])
    # The window over the end of the ring comes last and ends with the stream's beginning.
    ring = np.roll(split.ids, -start.min())
    np.testing.assert_array_equal(stream, ring)


def test_epochs_and_seeds_have_their_own_order():
    order = make_order()
    count = order.num_windows
    first, second = windows(order, range(count))[0], windows(order, range(count, 2 * count))[0]
    assert not np.array_equal(np.argsort(first), np.argsort(second))
    assert np.intersect1d(first, second).size != count
    assert not np.array_equal(first, windows(make_order(seed=4), range(count))[0])
    assert not np.array_equal(np.argsort(first), np.arange(count))


def test_windows_begin_everywhere_in_the_long_run():
    order = make_order(1037)
    examples = np.arange(3000 * order.num_windows)
    start = windows(order, examples)[0]
    begun = np.bincount(start, minlength=1037) / 3000
    expected = order.num_windows / 1037
    assert np.abs(begun - expected).max() < 6 * np.sqrt(expected / 3000)


def test_an_example_does_not_depend_on_its_company():
    order = make_order()
    chosen = [450, 7, 1000]
    together = windows(order, np.arange(1001))
    for alone, values in zip(windows(order, chosen), together, strict=True):
        np.testing.assert_array_equal(alone, values[chosen])


def test_order_stays_the_same():
    """Another version of the code or of TensorFlow must not change the batches of a run."""
    start, size, objective, single = windows(make_order(), [0, 1, 2, 20, 2000])
    assert start.tolist() == [9053, 9948, 8720, 3645, 4806]
    assert size.tolist() == [60, 61, 57, 53, 57]
    assert objective.tolist() == [2, 2, 1, 0, 1]
    assert not single.any()


def test_streams_longer_than_32_bits():
    start = windows(make_order(10**12), np.arange(1000))[0]
    assert start.max() > 2**33 and start.min() >= 0 and start.max() < 10**12


def test_a_stream_shorter_than_a_sequence_is_refused():
    with pytest.raises(UsageError, match="has 63 tokens, but one example needs 64"):
        make_order(63)


def test_windows_of_the_ring(make_split, special):
    split = make_split(200, 10, 20)
    size, enc = split.num_tokens, special["ENC"]
    text, length = read_windows(split, np.array([0, 5, size - 3]), np.array([9, 11, 8]), 12, enc)
    assert length.tolist() == [9, 12, 9]
    np.testing.assert_array_equal(text[0, :9], split.ids[:9])
    np.testing.assert_array_equal(text[1], [enc, *split.ids[5:16]])
    np.testing.assert_array_equal(text[2, :9], [enc, *split.ids[-3:], *split.ids[:5]])
