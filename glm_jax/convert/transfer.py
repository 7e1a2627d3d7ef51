"""Tensors from a source into a destination, and back out of it to be compared."""

from __future__ import annotations

import ctypes
import itertools
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue
from typing import TypeVar

import numpy as np

from glm_jax.convert.weights import WeightDestination, WeightSource
from glm_jax.errors import RunError, UsageError

# Called with the bytes done since the last call.
Progress = Callable[[int], None]

_TRIM = getattr(ctypes.CDLL(None), "malloc_trim", None)

Item = TypeVar("Item")
Result = TypeVar("Result")


def copy_tensors(
    source: WeightSource,
    destination: WeightDestination,
    checksums: dict[str, int],
    progress: Progress,
    inspect: Callable[[str, np.ndarray], None],
) -> None:
    """Writes every tensor.

    NumPy, the checksums and the disk all release the interpreter's lock, so that one thread reads
    while another transposes and writes.

    Args:
      source: where they come from.
      destination: where they go, in the order it asks for.
      checksums: gets the CRC-32 of every tensor as it was read.
      progress: called with the bytes of every tensor written.
      inspect: called with the name and the values of every tensor.
    """

    def read(name: str) -> np.ndarray:
        tensor = source.read(name)
        checksums[name] = checksum(tensor)
        return tensor

    for name, tensor in _ahead(read, destination.order):
        inspect(name, tensor)
        destination.write(name, tensor)
        progress(tensor.nbytes)
        del tensor
        return_freed_memory()


def compare(
    written: Sequence[WeightSource],
    source: WeightSource,
    checksums: Mapping[str, int],
    progress: Progress,
) -> None:
    """Reads everything back.

    Args:
      written: what was written, opened once for every thread that is to read it.
      source: what it was read from.
      checksums: of all its tensors.
      progress: called with the bytes of every tensor compared.

    Raises:
      RunError: a tensor is missing, or is not what the source had.
    """
    found_tensors = written[0].tensors
    for name, info in source.tensors.items():
        if found_tensors.get(name) != info:
            raise RunError(
                f"{name} was written as {found_tensors.get(name)}, but {source.where(name)} has "
                f"{info}; nothing is kept"
            )
    if additional := found_tensors.keys() - source.tensors.keys():
        raise RunError(f"{min(additional)} was written, but {source.path} doesn't have it")
    free: SimpleQueue[WeightSource] = SimpleQueue()
    for reader in written:
        free.put(reader)

    def find_checksum(name: str) -> int:
        reader = free.get()
        try:
            return checksum(reader.read(name))
        except UsageError as error:
            raise RunError(f"what was written can't be read back: {error}") from error
        finally:
            free.put(reader)

    # The largest is read alone, so that there is no other one in memory with it.
    largest = max(source.tensors, key=lambda name: source.tensors[name].nbytes)
    rest = [name for name in found_tensors if name != largest]
    alone = [(largest, find_checksum(largest))]
    for name, found in itertools.chain(
        alone, _ahead(find_checksum, rest, num_threads=len(written))
    ):
        if checksums[name] != found:
            raise RunError(
                f"{name} in {written[0].where(name)} was not written as it was read from "
                f"{source.where(name)}; nothing is kept"
            )
        progress(source.tensors[name].nbytes)
        return_freed_memory()


def return_freed_memory() -> None:
    """Returns freed memory to the operating system, where the C library can (glibc).

    It keeps large buffers of every thread for later ones otherwise, some hundred MB in all.
    """
    if _TRIM is not None:
        _TRIM(0)


def checksum(tensor: np.ndarray) -> int:
    """CRC-32 of a C-contiguous tensor's bytes."""
    return zlib.crc32(tensor.reshape(-1).view(np.uint8).data)


def _ahead(
    function: Callable[[Item], Result], items: Iterable[Item], *, num_threads: int = 1
) -> Iterator[tuple[Item, Result]]:
    """Results in order, the next ones being worked on by other threads meanwhile."""
    with ThreadPoolExecutor(num_threads) as threads:
        remaining = iter(items)
        pending: deque[tuple[Item, Future[Result]]] = deque()
        try:
            while True:
                for item in itertools.islice(remaining, num_threads + 1 - len(pending)):
                    pending.append((item, threads.submit(function, item)))
                if not pending:
                    return
                item, result = pending.popleft()
                yield item, result.result()
        finally:
            for _, result in pending:
                result.cancel()
