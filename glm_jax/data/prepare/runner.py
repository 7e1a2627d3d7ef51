"""Who does the work of preparing a corpus: the processes of one machine, or a cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np

from glm_jax.data.sources.document import ReadOptions
from glm_jax.data.sources.inputs import Input, Shard, shards_of
from glm_jax.data.sources.workers import ordered_map

NumberedShard = tuple[str, Shard]


@runtime_checkable
class Runner(Protocol):
    """Does pieces of work that don't depend on each other, anywhere and in any order.

    ``folder``, a path or URL, is where it may leave its own files.
    """

    def shards(
        self,
        inputs: list[Input],
        options: ReadOptions,
        work: Callable[[NumberedShard], tuple[int, int]],
        folder: str,
    ) -> Iterator[tuple[str, int, int]]:
        """Split inputs into shards and work on each; gives names and the work's results, sorted."""
        ...

    def total(
        self, items: Iterable[Any], work: Callable[[Any], np.ndarray], folder: str
    ) -> np.ndarray:
        """Work on each item; gives the sum of the results."""
        ...


def numbered_shards(number: int, input: Input, options: ReadOptions) -> Iterator[NumberedShard]:
    """The shards of input ``number`` with their names, which sort as the shards do."""
    for index, shard in enumerate(shards_of(input, options)):
        yield f"{number:08d}-{index:08d}", shard


@dataclass(frozen=True)
class LocalRunner:
    """Processes of this machine.

    Sources that can't be read from their middle are read here and sent to the workers; the others
    are read by the workers.
    """

    workers: int = 1

    def shards(
        self,
        inputs: list[Input],
        options: ReadOptions,
        work: Callable[[NumberedShard], tuple[int, int]],
        folder: str,
    ) -> Iterator[tuple[str, int, int]]:
        shards = (
            shard
            for number, input in enumerate(inputs)
            for shard in numbered_shards(number, input, options)
        )
        return ordered_map(_Named(work), shards, self.workers)

    def total(
        self, items: Iterable[Any], work: Callable[[Any], np.ndarray], folder: str
    ) -> np.ndarray:
        return sum(ordered_map(work, items, self.workers), np.zeros((), np.int64))


@dataclass(frozen=True)
class _Named:
    """Adds the shard's name to the results of work on it."""

    work: Callable[[NumberedShard], tuple[int, int]]

    def __call__(self, shard: NumberedShard) -> tuple[str, int, int]:
        return shard[0], *self.work(shard)
