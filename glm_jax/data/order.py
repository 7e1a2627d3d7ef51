"""Example index -> where in the token stream its text begins.

The stream of a split is taken as a ring. An epoch cuts it, from a phase of its own, into windows
that follow each other without overlap, and visits them in a random order; what is left over is
less than one window, and another part of the stream in every epoch. So no token comes twice in an
epoch and all come equally often in the long run. Nothing is remembered between examples: the
permutation is `tf.random_index_shuffle`.
"""

import tensorflow as tf
from jaxtyping import Int64

from glm_jax.data.randomness import Stream, integers, uniforms


def window_starts(
    example: Int64[tf.Tensor, "B"], *, num_tokens: int, window: int, seed: int
) -> Int64[tf.Tensor, "B"]:
    """Where the `window` tokens of each example begin in a ring of `num_tokens` >= `window`."""
    windows = num_tokens // window
    epoch = example // windows
    phase = integers(uniforms(seed, Stream.PHASE, epoch, 1)[:, 0], num_tokens, tf.int64)
    # random_index_shuffle takes a seed of three numbers for every index.
    fixed = tf.fill(tf.shape(epoch), tf.constant(seed % 2**63, tf.int64))
    index = tf.random_index_shuffle(
        tf.math.floormod(example, windows),
        seed=tf.stack([fixed, epoch, tf.zeros_like(epoch)], axis=1),
        max_index=tf.constant(windows - 1, tf.int64),
    )
    return tf.math.floormod(phase + index * window, num_tokens)
