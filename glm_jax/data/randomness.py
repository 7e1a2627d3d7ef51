"""Random numbers that are a pure function of (seed, stream, example, index).

TensorFlow's stateless generators take one seed per call, so independent numbers for every
example of a batch would cost one call per example (some 20 microseconds each). SplitMix64 (Steele,
Lea and Flood 2014) is counter-based: the numbers of a batch are a few elementwise operations.
"""

from enum import IntEnum
from typing import cast

import tensorflow as tf
from jaxtyping import Float64, Int64, Integer

_GAMMA = 0x9E3779B97F4A7C15
_MULTIPLIERS = (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
_SHIFTS = (30, 27, 31)
_UINT64 = 2**64 - 1


class RandomStream(IntEnum):
    """What a number is drawn for; every purpose has its own independent numbers."""

    OBJECTIVE = 0
    SPAN_LENGTH = 1
    LENGTH_ORDER = 2
    SPAN_POSITION = 3
    BLOCK_ORDER = 4
    SENTENCE_ORDER = 5
    DOCUMENT = 6
    BLOCK_MASK = 7
    ORDER = 8
    SHORT_SEQUENCE = 9
    FIRST_POSITION = 10
    CONTEXT_MASK = 11


def _mix(value: int) -> int:
    """SplitMix64's finaliser on a Python integer."""
    value &= _UINT64
    for shift, multiplier in zip(_SHIFTS, (*_MULTIPLIERS, 1), strict=True):
        value = ((value ^ (value >> shift)) * multiplier) & _UINT64
    return value


def _mix_tensor(value: tf.Tensor) -> tf.Tensor:
    """SplitMix64's finaliser on a uint64 tensor."""
    for shift, multiplier in zip(_SHIFTS, (*_MULTIPLIERS, None), strict=True):
        value = tf.bitwise.bitwise_xor(
            value, tf.bitwise.right_shift(value, tf.constant(shift, tf.uint64))
        )
        if multiplier is not None:
            value *= tf.constant(multiplier, tf.uint64)
    return value


def uniforms(
    seed: int, stream: RandomStream, example: Int64[tf.Tensor, "B"], count: int | tf.Tensor
) -> Float64[tf.Tensor, "B count"]:
    """Independent numbers, uniform in [0, 1), with 53 random bits each.

    Number j of an example does not depend on `count`, nor on the other examples.

    Args:
      seed: the run's data seed, any integer.
      stream: what the numbers are for.
      example: example indices.
      count: how many numbers each example gets.
    """
    gamma = tf.constant(_GAMMA, tf.uint64)
    start = tf.constant(_mix(_mix(seed) + stream), tf.uint64)
    key = _mix_tensor(start + (tf.cast(example, tf.uint64) + 1) * gamma)
    index = tf.cast(tf.range(count), tf.uint64)
    bits = _mix_tensor(key[:, None] + (index + 1)[None, :] * gamma)
    mantissa = tf.bitwise.right_shift(bits, tf.constant(11, tf.uint64))
    return cast(tf.Tensor, tf.cast(mantissa, tf.float64) * 2.0**-53)


def integers(
    uniform: Float64[tf.Tensor, "*shape"], bound: tf.Tensor | int, dtype: tf.DType = tf.int32
) -> Integer[tf.Tensor, "*shape"]:
    """Integers uniform in [0, bound), from uniform numbers; `bound` >= 1 broadcasts."""
    return cast(tf.Tensor, tf.cast(tf.floor(uniform * tf.cast(bound, tf.float64)), dtype))
