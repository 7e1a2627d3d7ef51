"""Several streams of examples mixed by weight, without counting.

Examples are dealt to streams as evenly as whole numbers allow: of the first n examples, the first
of two streams gets floor(n x its share), for every n. So which stream an example belongs to, and
which of that stream's own examples it is, are functions of its index, and any number of following
examples has the shares of all. More than two streams are dealt one after the other, each from what
those before it leave.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import tensorflow as tf
from jaxtyping import Int32, Int64

from glm_jax.data.batch import Batch
from glm_jax.data.texts import PythonCalls, Texts, TextSource

_UNIT = 1 << 30  # shares are whole multiples of 1 / _UNIT; products with it fit into int64


def deal(
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
        share = round(weight / sum(weights[number:]) * _UNIT)
        before = _dealt(left, share)
        takes = is_left & (_dealt(left + 1, share) > before)
        stream = tf.where(takes, number, stream)
        left = tf.where(takes, before, tf.where(is_left, left - before, left))
        is_left &= tf.logical_not(takes)
    return stream, left


def rows_of(number: int, stream: Int32[tf.Tensor, "B"]) -> Int32[tf.Tensor, "rows"]:
    """The rows of a batch that a stream has."""
    return tf.cast(tf.where(tf.equal(stream, number))[:, 0], tf.int32)


class MixedTexts:
    """Texts of several sources by weight (a `TextSource`); every source counts its own examples."""

    def __init__(self, sources: Sequence[TextSource], weights: Sequence[float]) -> None:
        """Mix sources whose texts are equally wide."""
        self._sources, self._weights = sources, weights

    def __call__(self, example: Int64[tf.Tensor, "B"], calls: PythonCalls) -> Texts:
        stream, own = deal(example, self._weights)
        rows, parts = [], []
        for number, source in enumerate(self._sources):
            row = rows_of(number, stream)
            rows.append(row)
            parts.append(source(tf.gather(own, row), calls))
        return Texts(*(tf.dynamic_stitch(rows, list(field)) for field in zip(*parts, strict=True)))


class RowSource(Protocol):
    """Examples that come as rows of a batch (contract C1), rather than as text for blanks."""

    def rows(self, example: Int64[np.ndarray, "B"]) -> Batch:
        """The rows of some examples, or of none; each is a pure function of its index."""
        ...


@dataclass(frozen=True)
class MixedIn:
    """A second stream of examples; `share` in (0, 1) is its part of all examples."""

    source: RowSource
    share: float


def add_rows(
    made: dict[str, tf.Tensor],
    source: RowSource,
    stream: Int32[tf.Tensor, "B"],
    own: Int64[tf.Tensor, "B"],
    sequence_length: int,
    calls: PythonCalls,
) -> dict[str, tf.Tensor]:
    """A whole batch, of the rows that are made (stream 0) and those of a source (stream 1).

    Args:
      stream, own: of all rows of the batch, as `deal` gives them.
      sequence_length: L.
    """
    form = batch_form(sequence_length)

    def read(example: np.ndarray) -> list[np.ndarray]:
        found = source.rows(example)
        return [found[name] for name in form]

    places = [rows_of(number, stream) for number in (0, 1)]
    kinds = [kind for _, kind in form.values()]
    found = calls.call(read, [tf.gather(own, places[1])], kinds)
    return {
        name: tf.dynamic_stitch(places, [made[name], rows])
        for name, rows in zip(form, found, strict=True)
    }


def batch_form(sequence_length: int) -> dict[str, tuple[tuple[int, ...], tf.DType]]:
    """Shape of one row and type of every array of a batch (contract C1)."""
    return {
        "tokens": ((sequence_length,), tf.int32),
        "targets": ((sequence_length,), tf.int32),
        "loss_mask": ((sequence_length,), tf.float32),
        "position_ids": ((2, sequence_length), tf.int32),
        "prefix_length": ((), tf.int32),
        "objective": ((), tf.int32),
    }


def _dealt(count: tf.Tensor, share: int) -> tf.Tensor:
    """floor(count x share / _UNIT), for counts as large as int64 holds."""
    whole, rest = count // _UNIT, tf.math.floormod(count, _UNIT)
    return whole * share + rest * share // _UNIT
