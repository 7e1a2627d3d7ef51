"""Batches of static shapes, a pure function of (seed, step).

Rows are encoded in Python, in shapes that differ between batches, which tf.data would only call
back for; so threads make complete batches here, in order.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial
from itertools import count
from threading import Lock
from typing import TypeVar

import numpy as np
from jaxtyping import Int

from glm_jax.finetune.encoded import EncodedExamples
from glm_jax.finetune.order import LENGTH_WINDOW, random_order, window_batches
from glm_jax.finetune.priming import PrimingTexts

Batch = dict[str, np.ndarray]
Item = TypeVar("Item")

# Rows of which the share of padding is known before training.
_MEASURED_ROWS = 1024
_BATCHES_AHEAD = 4


def steps_per_epoch(num_rows: int, batch_size: int) -> int:
    """Batches of an epoch, a partial one included."""
    return -(-num_rows // batch_size)


class TrainingBatches:
    """The batch of every step.

    Every epoch has an order of its own, in which windows of several batches follow each other; the
    rows of a window are encoded together, and those of like length become a batch.
    """

    def __init__(
        self,
        examples: EncodedExamples,
        batch_size: int,
        seed: int,
        *,
        window: int = LENGTH_WINDOW,
        priming: PrimingTexts | None = None,
    ) -> None:
        """Takes what decides the batches, and makes none.

        Args:
          examples: of the task.
          batch_size: rows of a batch.
          seed: decides the order.
          window: batches among which rows of like length are grouped; 1 for none.
          priming: texts of the pretraining objective, whose batches replace some of the task's.
        """
        self.examples, self.batch_size, self.priming = examples, batch_size, priming
        self._seed, self._window, self._lock = seed, window, Lock()
        self._of_epoch = lru_cache(maxsize=2)(examples.of_epoch)
        self._order = lru_cache(maxsize=2)(partial(random_order, len(examples), seed))
        self._batches = lru_cache(maxsize=4)(self._window_batches)

    def _window_batches(self, epoch: int, window: int) -> list[Int[np.ndarray, "b"]]:
        size = self._window * self.batch_size
        rows = self._order(epoch)[window * size : (window + 1) * size]
        examples = self._of_epoch(epoch)
        lengths = [examples.length(int(row)) if self._window > 1 else 0 for row in rows]
        return window_batches(
            rows, np.asarray(lengths), self.batch_size, self._seed, epoch, 1 + window
        )

    def indices(self, step: int) -> Int[np.ndarray, "b"]:
        """The rows of the task's batch of a step, from 0."""
        epoch, number = self._epoch_of(step)
        window, number = divmod(number, self._window)
        with self._lock:  # so that one thread encodes the rows of a window
            return self._batches(epoch, window)[number]

    def at(self, step: int) -> Batch:
        """The batch of a step, from 0: of the task or, in its place, of the priming texts."""
        if self.priming is not None and self.priming.is_due(step):
            return self.priming.batch(step, self.batch_size)
        epoch, _ = self._epoch_of(step)
        return self._of_epoch(epoch).batch(self.indices(step), self.batch_size)

    def _epoch_of(self, step: int) -> tuple[int, int]:
        """The epoch of a step, and its number in the epoch."""
        return divmod(step, steps_per_epoch(len(self.examples), self.batch_size))

    def padding_share(self) -> float:
        """Share of the positions of the first batches of the task that no row uses."""
        total = needed = 0
        for step in range(max(_MEASURED_ROWS // self.batch_size, 1)):
            if step == steps_per_epoch(len(self.examples), self.batch_size):
                break
            indices = self.indices(step)
            examples = self._of_epoch(0)
            total += examples.batch(indices, self.batch_size)["tokens"].size
            needed += sum(examples.row(int(index))["tokens"].size for index in indices)
        return 1 - needed / total


def training_batches(
    batches: TrainingBatches, first_step: int = 0, threads: int = 1
) -> Iterator[Batch]:
    """The batches of one step after another, without end, from a step on."""
    return made_ahead(batches.at, count(first_step), threads)


def evaluation_batches(
    examples: EncodedExamples, batch_size: int, threads: int = 1
) -> Iterator[tuple[Int[np.ndarray, "b"], Batch]]:
    """All rows once, those of like length together: (indices, batch)."""
    order = np.argsort(examples.sizes, kind="stable")
    chunks = (order[start : start + batch_size] for start in range(0, len(order), batch_size))

    def make(indices: np.ndarray) -> tuple[np.ndarray, Batch]:
        return indices, examples.batch(indices, batch_size)

    return made_ahead(make, chunks, threads)


Argument = TypeVar("Argument")


def made_ahead(
    make: Callable[[Argument], Item], arguments: Iterator[Argument], threads: int
) -> Iterator[Item]:
    """`make` of every argument, in their order, computed by threads before it is asked for."""
    pool = ThreadPoolExecutor(threads, thread_name_prefix="finetune-batches")
    made: deque = deque()
    try:
        for argument in arguments:
            made.append(pool.submit(make, argument))
            if len(made) > threads + _BATCHES_AHEAD:
                yield made.popleft().result()
        while made:
            yield made.popleft().result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
