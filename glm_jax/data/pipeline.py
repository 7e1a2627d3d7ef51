"""Token store -> batches, on tf.data.

A batch is a pure function of (seed, example indices): starting at any step costs nothing, and it
does not matter how many readers share the rows.
"""

import weakref
from collections.abc import Iterator, Mapping
from typing import Protocol, cast

import numpy as np
import tensorflow as tf
from jaxtyping import Bool, Int32, Int64

from glm_jax.data.batch import Batch, make_batch
from glm_jax.data.objectives import BlankConfig
from glm_jax.data.order import window_starts
from glm_jax.errors import UsageError

SHORTEST_SEQUENCE = 16


class TokenStream(Protocol):
    """The part of a token store's split that batches are made from."""

    @property
    def num_tokens(self) -> int: ...

    def read(
        self, starts: Int64[np.ndarray, "B"], length: int
    ) -> Int32[np.ndarray, "B length"]: ...


def batches(
    split: TokenStream,
    *,
    blanks: BlankConfig,
    special: Mapping[str, int],
    sentence_end: Bool[np.ndarray, "V"],
    sequence_length: int,
    batch_size: int,
    seed: int,
    start_step: int = 0,
    num_steps: int | None = None,
    rows: range | None = None,
    threads: int = 1,
) -> Iterator[Batch]:
    """Batches in the form of contract C1, from step `start_step` on.

    Args:
      split: the token stream to read.
      blanks: how blanks are cut.
      special: ids of the special tokens.
      sentence_end: by token id, whether it ends a sentence.
      sequence_length: L.
      batch_size: examples of a step, over all readers.
      seed: data seed.
      num_steps: how many batches; None goes on for ever.
      rows: which rows of each step's batch to make; None makes all.
      threads: how many threads prepare batches ahead of their use.

    Raises:
      UsageError: the split is shorter than a sequence, or the settings do not fit together.
    """
    _hide_accelerators()
    rows = range(batch_size) if rows is None else rows
    if not rows or min(rows) < 0 or max(rows) >= batch_size:
        raise UsageError(f"a reader is to make {rows} of a batch of {batch_size} rows.")
    _check_special(blanks, special)
    _check_length(split.num_tokens, sequence_length)

    failures: list[Exception] = []

    def read_text(starts: np.ndarray) -> np.ndarray:
        try:
            return read_windows(split, starts, sequence_length, special["ENC"])
        except Exception as failure:  # TensorFlow would pass on its text only
            failures.append(failure)
            raise

    # Nothing here branches on tensors; without autograph the first batch comes seconds earlier.
    @tf.autograph.experimental.do_not_convert
    def read(step: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        example = step * batch_size + tf.range(rows.start, rows.stop, rows.step, dtype=tf.int64)
        starts = window_starts(
            example, num_tokens=split.num_tokens, window=sequence_length, seed=seed
        )
        text = tf.numpy_function(read_text, [starts], tf.int32)
        return tf.ensure_shape(text, [len(rows), sequence_length]), example

    @tf.autograph.experimental.do_not_convert
    def blank(text: tf.Tensor, example: tf.Tensor) -> dict[str, tf.Tensor]:
        return make_batch(
            text, example, config=blanks, special=special, sentence_end=sentence_end, seed=seed
        )

    stopped = tf.Variable(tf.constant(False), trainable=False)
    end = np.iinfo(np.int64).max if num_steps is None else start_step + num_steps
    dataset = tf.data.Dataset.range(start_step, end)
    dataset = dataset.take_while(lambda _: tf.logical_not(stopped))
    dataset = dataset.map(read, num_parallel_calls=threads, deterministic=True)
    dataset = dataset.map(blank, num_parallel_calls=threads, deterministic=True)
    options = tf.data.Options()
    options.threading.private_threadpool_size = threads
    options.threading.max_intra_op_parallelism = 1
    return _Batches(dataset.with_options(options).prefetch(2), stopped, failures)


class _Batches(Iterator[Batch]):
    """The elements of a dataset that reads through Python.

    A TensorFlow iterator that is dropped waits for its threads with Python's lock held. If one of
    them is about to read, it waits for that lock, for ever. So when this iterator is dropped, or
    the interpreter exits, the source is stopped first and what is under way is taken out.
    """

    def __init__(
        self, dataset: tf.data.Dataset, stopped: tf.Variable, failures: list[Exception]
    ) -> None:
        self._iterator = dataset.as_numpy_iterator()
        self._failures = failures
        weakref.finalize(self, _finish, self._iterator, stopped)

    def __next__(self) -> Batch:
        try:
            return cast(Batch, next(self._iterator))
        except tf.errors.OpError:
            if self._failures:  # what went wrong, not TensorFlow's account of it
                raise self._failures[0] from None
            raise


def _finish(iterator: Iterator, stopped: tf.Variable) -> None:
    """Stops the source of a dataset and takes out what is under way."""
    stopped.assign(True)
    while True:
        try:
            next(iterator)
        except StopIteration:
            return
        except tf.errors.OpError:  # a read that failed; others may still be under way
            continue


def _hide_accelerators() -> None:
    """TensorFlow only prepares batches here: the accelerators are JAX's."""
    for kind in ("GPU", "TPU"):
        tf.config.set_visible_devices([], kind)


def _check_special(blanks: BlankConfig, special: Mapping[str, int]) -> None:
    """Raises UsageError if the tokenizer lacks a token that the blanks need."""
    blanks.mask_ids(special)
    if blanks.block_mask_probability > 0 and "dBLOCK" not in special:
        raise UsageError(
            "blanks.block_mask_probability is above 0, but the tokenizer has no token dBLOCK; "
            "expected one made with decoder_mask=True."
        )


def _check_length(num_tokens: int, sequence_length: int) -> None:
    """Raises UsageError if a sequence cannot hold blanks, or the split not one sequence."""
    if sequence_length < SHORTEST_SEQUENCE:
        raise UsageError(
            f"the sequence length is {sequence_length}, "
            f"but must be at least {SHORTEST_SEQUENCE} to hold text and blanks."
        )
    if num_tokens < sequence_length:
        raise UsageError(
            f"the split has {num_tokens} tokens, but one example needs {sequence_length} of them: "
            "give it more text or make the sequence shorter."
        )


def read_windows(
    split: TokenStream, starts: Int64[np.ndarray, "B"], length: int, enc: int
) -> Int32[np.ndarray, "B length"]:
    """Texts of `length` tokens from the split taken as a ring; each begins with ENC.

    A window that begins inside a document is moved right by one place to make room for ENC.
    """
    last = split.num_tokens - length
    text = np.array(split.read(np.minimum(starts, last), length), np.int32)
    for row in np.flatnonzero(starts > last):  # windows over the end of the ring
        over = int(starts[row] - last)
        text[row] = np.concatenate([text[row, over:], split.read(np.array([0]), length)[0, :over]])
    inside = text[:, 0] != enc
    text[inside, 1:] = text[inside, :-1]
    text[inside, 0] = enc
    return text
