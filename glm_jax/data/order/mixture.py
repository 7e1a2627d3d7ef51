"""Several streams of examples mixed by weight, without counting.

Examples are assigned to streams as evenly as integers allow: of the first n examples, the first
of two streams gets floor(n x its share), for every n. So which stream an example belongs to, and
which of that stream's own examples it is, are functions of its index, and any number of following
examples has the shares of all. More than two streams are assigned one after the other, each
from the examples left by those before it.
"""

from collections.abc import Sequence

import tensorflow as tf
from jaxtyping import Int32, Int64

from glm_jax.data.order.shares import UNIT
from glm_jax.data.order.texts import PythonCalls, Texts, TextSource


def assign_streams(
    example: Int64[tf.Tensor, "B"], weights: Sequence[float]
) -> tuple[Int32[tf.Tensor, "B"], Int64[tf.Tensor, "B"]]:
    """The stream of each example, and the number of examples that its stream has had before it.

    Args:
      example: example indices, from 0.
      weights: one positive number for each stream; they need not add up to 1.
    """
    left = example  # index among the examples that no stream has taken
    is_left = tf.ones_like(example, tf.bool)
    stream = tf.fill(tf.shape(example), len(weights) - 1)
    for number, weight in enumerate(weights[:-1]):
        share = round(weight / sum(weights[number:]) * UNIT)
        before = _num_assigned(left, share)
        takes = is_left & (_num_assigned(left + 1, share) > before)
        stream = tf.where(takes, number, stream)
        left = tf.where(takes, before, tf.where(is_left, left - before, left))
        is_left &= tf.logical_not(takes)
    return stream, left


def rows_of(number: int, stream: Int32[tf.Tensor, "B"]) -> Int32[tf.Tensor, "rows"]:
    """The rows of a batch that a stream has."""
    return tf.cast(tf.where(tf.equal(stream, number))[:, 0], tf.int32)


class MixedTexts:
    """Texts of several sources by weight (a `TextSource`); every source counts its own examples."""

    def __init__(
        self,
        sources: Sequence[TextSource],
        weights: Sequence[float],
        *,
        start: int = 0,
        before: Sequence[int] | None = None,
    ) -> None:
        """Mix sources whose texts are equally wide.

        Args:
          sources: their texts.
          weights: one positive number for each.
          start: the first example that is mixed so.
          before: how many examples of each source there were before that; none by default.
        """
        self._sources, self._weights, self._start = sources, weights, start
        self._before = [0] * len(sources) if before is None else before

    def __call__(self, example: Int64[tf.Tensor, "B"], calls: PythonCalls) -> Texts:
        stream, index_in_stream = assign_streams(example - self._start, self._weights)
        rows, parts = [], []
        for number, source in enumerate(self._sources):
            row = rows_of(number, stream)
            rows.append(row)
            parts.append(source(tf.gather(index_in_stream, row) + self._before[number], calls))
        return Texts(*(tf.dynamic_stitch(rows, list(field)) for field in zip(*parts, strict=True)))


def _num_assigned(count: tf.Tensor, share: int) -> tf.Tensor:
    """floor(count x share / UNIT), for counts as large as int64 holds."""
    quotient, rest = count // UNIT, tf.math.floormod(count, UNIT)
    return quotient * share + rest * share // UNIT
