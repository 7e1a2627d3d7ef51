"""Example index -> row of a batch: its text or a second stream's row, then its blanks."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Protocol, runtime_checkable

import numpy as np
import tensorflow as tf
from jaxtyping import Bool, Int32, Int64

from glm_jax import validation
from glm_jax.data.batches.batch import Batch, make_batch
from glm_jax.data.blanks.config import BlankConfig
from glm_jax.data.blanks.objectives import check_special
from glm_jax.data.order.mixture import assign_streams, rows_of
from glm_jax.data.order.texts import PythonCalls, TextSource

MIN_SEQUENCE_LENGTH = 16


@runtime_checkable
class RowSource(Protocol):
    """Examples that come as rows of a batch (contract C1), rather than as text for blanks."""

    def rows(self, example: Int64[np.ndarray, "B"]) -> Batch:
        """The rows of some examples, or of none; each is a pure function of its index."""
        ...


@dataclass(frozen=True)
class MixedIn:
    """A second stream of examples.

    Attributes:
      source: the examples.
      share: in (0, 1), their part of all examples.
      start: the first example that is mixed so.
      before: of the examples before that, how many were of this stream.
    """

    source: RowSource
    share: float
    start: int = 0
    before: int = 0

    def assign(
        self, example: Int64[tf.Tensor, "B"]
    ) -> tuple[Int32[tf.Tensor, "B"], Int64[tf.Tensor, "B"]]:
        """Whether each example is a text (0) or of this stream (1), and which one there."""
        shares = [1 - self.share, self.share]
        stream, index_in_stream = assign_streams(example - self.start, shares)
        before = tf.constant([self.start - self.before, self.before], tf.int64)
        return stream, index_in_stream + tf.gather(before, stream)


@dataclass(frozen=True)
class RowMaker:
    """Makes rows of batches; each is a pure function of its example index.

    `choose` reads, and `blank` computes: called one after the other they make the rows.

    Attributes:
      texts: the texts of the examples.
      blanks: how blanks are sampled.
      special: ids of the special tokens.
      sentence_end: by token id, whether it ends a sentence.
      sequence_length: L.
      seed: data seed.
      mixed_in: further examples, in addition to those of `texts`.
      calls: what goes wrong in reading is kept here.
    """

    texts: TextSource
    blanks: BlankConfig
    special: Mapping[str, int]
    sentence_end: Bool[np.ndarray, "V"]
    sequence_length: int
    seed: int
    mixed_in: MixedIn | None = None
    calls: PythonCalls = field(default_factory=PythonCalls)

    def __post_init__(self) -> None:
        """Raises UsageError if the settings do not fit together."""
        check_special(self.blanks, self.special)
        # Shorter sequences have no room for text and blanks.
        validation.at_least("data", self, MIN_SEQUENCE_LENGTH, "sequence_length")

    def choose(self, example: Int64[tf.Tensor, "B"]) -> tuple:
        """The texts, the index of each in `texts`, and which rows they and the others are."""
        if self.mixed_in is None:
            return self.texts(example, self.calls), example
        stream, index_in_stream = self.mixed_in.assign(example)
        of_texts = tf.gather(index_in_stream, rows_of(0, stream))
        return self.texts(of_texts, self.calls), of_texts, stream, index_in_stream

    def blank(
        self, chosen: tuple, example: tf.Tensor, *assigned: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        """A batch in the form of contract C1 from what was chosen."""
        text, length, objective, single_span = chosen
        if tf.inside_function():
            made = self._graph()(text, length, example, objective, single_span)
        else:  # for a few rows, for which building a graph would take longer
            made = make_batch(
                text, length, example, objective, single_span,
                config=self.blanks, special=self.special, sentence_end=self.sentence_end,
                sequence_length=self.sequence_length, seed=self.seed,
            )  # fmt: skip
        if self.mixed_in is not None:
            stream, index_in_stream = assigned
            made = add_rows(
                made,
                self.mixed_in.source,
                stream,
                index_in_stream,
                self.sequence_length,
                self.calls,
            )
        return {
            name: tf.ensure_shape(made[name], [None, *shape])
            for name, (shape, _) in batch_form(self.sequence_length).items()
        }

    def _graph(self) -> Callable[..., dict[str, tf.Tensor]]:
        return _batch_graph(
            self.blanks,
            tuple(self.special.items()),
            self.sentence_end.tobytes(),
            self.sequence_length,
            self.seed,
        )


@lru_cache(maxsize=16)
def _batch_graph(
    blanks: BlankConfig,
    special: tuple[tuple[str, int], ...],
    sentence_end: bytes,
    sequence_length: int,
    seed: int,
) -> Callable[..., dict[str, tf.Tensor]]:
    """`make_batch` with some settings; its graph is built once for all datasets of one shape.

    Building it takes over a second, and a run reads training and validation examples.
    """
    settings = {
        "config": blanks,
        "special": dict(special),
        "sentence_end": np.frombuffer(sentence_end, bool),
        "sequence_length": sequence_length,
        "seed": seed,
    }

    def make(*texts: tf.Tensor) -> dict[str, tf.Tensor]:
        return make_batch(*texts, **settings)

    return tf.function(make, autograph=False)


def add_rows(
    made: dict[str, tf.Tensor],
    source: RowSource,
    stream: Int32[tf.Tensor, "B"],
    index_in_stream: Int64[tf.Tensor, "B"],
    sequence_length: int,
    calls: PythonCalls,
) -> dict[str, tf.Tensor]:
    """A complete batch, of the rows that are made (stream 0) and those of a source (stream 1).

    Args:
      stream, index_in_stream: of all rows of the batch, as `assign_streams` gives them.
      sequence_length: L.
    """
    form = batch_form(sequence_length)

    def read(example: np.ndarray) -> list[np.ndarray]:
        found = source.rows(example)
        return [found[name] for name in form]

    indices = [rows_of(number, stream) for number in (0, 1)]
    kinds = [kind for _, kind in form.values()]
    found = calls.call(read, [tf.gather(index_in_stream, indices[1])], kinds)
    return {
        name: tf.dynamic_stitch(indices, [made[name], rows])
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
