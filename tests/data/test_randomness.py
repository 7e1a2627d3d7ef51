"""Random numbers of their own for every example."""

import numpy as np
import tensorflow as tf
from scipy.stats import chisquare, kstest

from glm_jax.data.randomness import RandomStream, integers, uniforms


def test_an_example_does_not_depend_on_its_company():
    together = uniforms(5, RandomStream.SPAN_POSITION, tf.range(100, dtype=tf.int64), 20).numpy()
    alone = uniforms(5, RandomStream.SPAN_POSITION, tf.constant([63], tf.int64), 7).numpy()
    np.testing.assert_array_equal(alone[0], together[63, :7])


def test_numbers_are_uniform_and_independent():
    drawn = uniforms(0, RandomStream.SPAN_POSITION, tf.range(4000, dtype=tf.int64), 16).numpy()
    assert kstest(drawn.ravel(), "uniform").pvalue > 1e-3
    between_examples = np.corrcoef(drawn[:-1, 0], drawn[1:, 0])[0, 1]
    between_numbers = np.corrcoef(drawn[:, 0], drawn[:, 1])[0, 1]
    others = uniforms(0, RandomStream.BLOCK_ORDER, tf.range(4000, dtype=tf.int64), 1).numpy()
    between_streams = np.corrcoef(drawn[:, 0], others[:, 0])[0, 1]
    seeds = uniforms(1, RandomStream.SPAN_POSITION, tf.range(4000, dtype=tf.int64), 1).numpy()
    between_seeds = np.corrcoef(drawn[:, 0], seeds[:, 0])[0, 1]
    for correlation in (between_examples, between_numbers, between_streams, between_seeds):
        assert abs(correlation) < 0.06


def test_numbers_stay_the_same():
    """Another version of the code or of TensorFlow must not change the batches of a run."""
    drawn = (
        uniforms(1, RandomStream.SPAN_POSITION, tf.constant([0, 10**12], tf.int64), 2)
        .numpy()
        .tolist()
    )
    assert drawn == [
        [0.8241250148457075, 0.020034130459403277],
        [0.09865871178733754, 0.1583318859893863],
    ]


def test_integers_are_uniform():
    drawn = integers(
        uniforms(2, RandomStream.SPAN_POSITION, tf.range(3000, dtype=tf.int64), 10), 7
    ).numpy()
    assert chisquare(np.bincount(drawn.ravel(), minlength=7)).pvalue > 1e-3
    assert drawn.max() == 6
