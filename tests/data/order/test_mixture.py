"""Which stream each example belongs to."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from glm_jax.data.order.mixture import MixedTexts, assign_streams
from glm_jax.data.order.texts import PythonCalls, Texts

weights = st.lists(st.floats(1e-3, 10), min_size=1, max_size=6)


def assigned(examples, weights):
    stream, index_in_stream = assign_streams(tf.constant(examples, tf.int64), weights)
    return stream.numpy(), index_in_stream.numpy()


@given(weights)
def test_streams_count_their_own_examples(weights):
    stream, index_in_stream = assigned(np.arange(3000), weights)
    for number in range(len(weights)):
        mine = index_in_stream[stream == number]
        np.testing.assert_array_equal(mine, np.arange(len(mine)))


@given(weights)
def test_any_run_of_examples_has_the_shares_of_all(weights):
    stream, _ = assigned(np.arange(3000), weights)
    for number, share in enumerate(np.array(weights) / sum(weights)):
        so_far = np.cumsum(stream == number) - share * np.arange(1, 3001)
        assert np.ptp(so_far) <= len(weights)


def test_shares_of_two_corpora():
    """0.7 and 0.3 within 1% over 100,000 examples, and to one example after any number."""
    stream, _ = assigned(np.arange(100_000), [0.7, 0.3])
    first = np.cumsum(stream == 0)
    assert abs(first[-1] - 70_000) <= 1
    assert np.abs(first - 0.7 * np.arange(1, 100_001)).max() < 1


@given(weights, st.integers(0, 2**50))
def test_an_example_does_not_depend_on_its_company(weights, example):
    together = assigned(np.arange(example, example + 20), weights)
    alone = [assigned([example + i], weights) for i in range(20)]
    for part, of_each in zip(together, zip(*alone, strict=True), strict=True):
        np.testing.assert_array_equal(part, np.concatenate(of_each))
    # Wherever one looks, a stream's examples are numbered one after the other.
    for number in set(together[0].tolist()):
        assert np.all(np.diff(together[1][together[0] == number]) == 1)


class Numbered:
    """Texts that tell their source and index."""

    def __init__(self, number):
        self.number = number

    def __call__(self, example, calls):
        same = tf.fill(tf.shape(example), self.number)
        text = tf.stack([same, tf.cast(example, tf.int32)], axis=1)
        return Texts(text, same, same, tf.equal(same, 1))


@pytest.mark.parametrize("size", [1, 2, 9])
def test_mixed_texts_are_those_of_their_sources(size):
    weights = [0.2, 0.5, 0.3]
    example = tf.range(100, 100 + size, dtype=tf.int64)
    texts = MixedTexts([Numbered(0), Numbered(1), Numbered(2)], weights)(example, PythonCalls())
    stream, index_in_stream = assigned(example.numpy(), weights)
    np.testing.assert_array_equal(texts.text, np.stack([stream, index_in_stream], axis=1))
    np.testing.assert_array_equal(texts.length, stream)
    np.testing.assert_array_equal(texts.single_span, stream == 1)
