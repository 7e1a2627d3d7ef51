"""Rows -> batches, on tf.data.

A batch is a pure function of (seed, example indices): starting at any example costs nothing, and it
does not matter how many readers share the rows.
"""

import weakref
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar, cast

import numpy as np
import tensorflow as tf

from glm_jax.data.batches.batch import Batch
from glm_jax.data.batches.rows import RowMaker
from glm_jax.errors import UsageError
from glm_jax.io.pipeline_options import untuned_options


def batches(
    make: RowMaker,
    *,
    batch_size: int,
    first_example: int = 0,
    num_steps: int | None = None,
    rows: Sequence[int] | None = None,
    threads: int = 1,
) -> Iterator[Batch]:
    """Batches in the form of contract C1.

    Args:
      make: makes the rows.
      batch_size: examples of a step, over all readers.
      first_example: index of the first batch's first example.
      num_steps: how many batches; None is unlimited.
      rows: which rows of each step's batch to make; None makes all.
      threads: how many threads prepare batches ahead of their use.

    Raises:
      UsageError: `rows` are not of the batch.
    """
    _hide_accelerators()
    rows = range(batch_size) if rows is None else rows
    if not len(rows) or min(rows) < 0 or max(rows) >= batch_size:
        raise UsageError(f"a reader is to make {rows} of a batch of {batch_size} rows.")

    # Nothing here branches on tensors; without autograph the first batch comes seconds earlier.
    @tf.autograph.experimental.do_not_convert
    def choose(step: tf.Tensor) -> tuple:
        examples = tf.constant([first_example + row for row in rows], tf.int64)
        return make.choose(step * batch_size + examples)

    stopped = tf.Variable(tf.constant(False), trainable=False)
    dataset = tf.data.Dataset.range(np.iinfo(np.int64).max if num_steps is None else num_steps)
    running = tf.autograph.experimental.do_not_convert(lambda _: tf.logical_not(stopped))
    dataset = dataset.take_while(running)
    dataset = dataset.map(choose, num_parallel_calls=threads, deterministic=True)
    blank = tf.autograph.experimental.do_not_convert(make.blank)
    dataset = dataset.map(blank, num_parallel_calls=threads, deterministic=True)
    options = untuned_options()
    options.threading.private_threadpool_size = threads
    options.threading.max_intra_op_parallelism = 1
    return _Batches(dataset.with_options(options).prefetch(2), stopped, make.calls.failures)


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


Item = TypeVar("Item")


class Prefetched(Generic[Item], Iterator[Item]):
    """The items of an iterator, made by its own thread while earlier ones are in use.

    The thread makes one item after the other and never more than were asked for, so that nothing
    keeps the interpreter from ending.
    """

    def __init__(self, items: Iterator[Item], ahead: int) -> None:
        """Start making `ahead` >= 1 items immediately."""
        self._items = items
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="prefetch")
        self._made = deque(self._thread.submit(next, items) for _ in range(ahead))

    def __next__(self) -> Item:
        self._made.append(self._thread.submit(next, self._items))
        return self._made.popleft().result()
