"""Which part of the stream each example is made from."""

import numpy as np
import pytest
import tensorflow as tf

from glm_jax.data.order import window_starts


def starts(examples, **arguments):
    settings = {"num_tokens": 1037, "window": 50, "seed": 3, **arguments}
    return window_starts(tf.constant(examples, tf.int64), **settings).numpy()


@pytest.mark.parametrize("num_tokens", [50, 99, 100, 1037])
def test_no_token_twice_in_an_epoch(num_tokens):
    windows = num_tokens // 50
    for epoch in range(4):
        examples = np.arange(epoch * windows, (epoch + 1) * windows)
        tokens = starts(examples, num_tokens=num_tokens)[:, None] + np.arange(50)
        assert len(np.unique(tokens % num_tokens)) == windows * 50


def test_all_tokens_come_equally_often():
    epochs = 4000
    tokens = starts(np.arange(epochs * 20))[:, None] + np.arange(50)
    seen = np.bincount((tokens % 1037).ravel(), minlength=1037) / epochs
    # Each of 1,000 of the 1,037 tokens comes in an epoch; 6 standard deviations around that.
    expected = 1000 / 1037
    assert np.abs(seen - expected).max() < 6 * np.sqrt(expected * (1 - expected) / epochs)


def test_epochs_and_seeds_have_their_own_order():
    first, second = starts(np.arange(20)), starts(np.arange(20, 40))
    assert not np.array_equal(np.argsort(first), np.argsort(second))
    assert not np.array_equal(first, starts(np.arange(20), seed=4))
    assert not np.array_equal(np.argsort(first), np.arange(20))


def test_an_example_does_not_depend_on_its_company():
    np.testing.assert_array_equal(starts([45, 7, 1000]), starts(np.arange(1001))[[45, 7, 1000]])


def test_order_stays_the_same():
    """Another version of the code or of TensorFlow must not change the batches of a run."""
    assert starts([0, 1, 2, 20, 2000]).tolist() == [805, 1005, 705, 812, 377]


def test_streams_longer_than_32_bits():
    examples = np.arange(1000)
    found = starts(examples, num_tokens=10**12, window=512)
    assert found.max() > 2**33 and found.min() >= 0 and found.max() < 10**12
