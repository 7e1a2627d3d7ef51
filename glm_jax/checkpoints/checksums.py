"""Checksums of a checkpoint's files: orbax itself does not notice a flipped bit in an array.

Every process sums up the files it has written, before the checkpoint becomes a complete one; a
last list, by process 0, holds what they share and the lists themselves, so that a file that is
missing is noticed as well as one that has changed.
"""

from __future__ import annotations

import json
import os
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import orbax.checkpoint as ocp
from etils import epath

# The folder of the lists, inside the item that they describe, and the list of the lists.
LISTS = "checksums"
LAST_LIST = "all.json"
# How orbax names the folder that a process writes.
PROCESS_FOLDER = "ocdbt.process_{}"
BLOCK_BYTES = 1 << 22
THREADS = 8

Sums = dict[str, list[int]]


class SummedPyTreeHandler(ocp.PyTreeCheckpointHandler):
    """Saves a tree as orbax does, and the checksums of its files with it."""

    async def async_save(self, directory, item=None, save_args=None, args=None):
        """As orbax's; the checksums of this process's files follow when these are written."""
        futures = await super().async_save(directory, item, save_args, args)

        def write_own() -> None:
            folder = epath.Path(str(getattr(directory, "path", directory)))
            number = jax.process_index()
            own = _files_in(folder / PROCESS_FOLDER.format(number))
            write_list(folder, f"process_{number}.json", sums(folder, own))

        return [_Then(futures or [], write_own)]

    def finalize(self, directory) -> None:
        """As orbax's, called in process 0 when all have written; then comes the last list."""
        super().finalize(directory)
        folder = epath.Path(str(directory))
        processes = {folder / PROCESS_FOLDER.format(n) for n in range(jax.process_count())}
        shared = [path for path in _files_in(folder) if not processes.intersection(path.parents)]
        write_list(folder, LAST_LIST, sums(folder, shared))


class _Then:
    """A future that does one more thing when others are done."""

    def __init__(self, futures: Sequence[Any], then: Callable[[], None]):
        self._futures = futures
        self._then = then

    def result(self, timeout: float | None = None) -> None:
        """Waits for the others, each as long as is left of `timeout` seconds, then does it."""
        deadline = None if timeout is None else time.monotonic() + timeout
        for future in self._futures:
            future.result(None if deadline is None else max(deadline - time.monotonic(), 0))
        self._then()


def _files_in(folder: epath.Path) -> Iterator[epath.Path]:
    """All files below a folder; none where there is no folder."""
    if folder.is_dir():
        for entry in folder.iterdir():
            if entry.is_dir():
                yield from _files_in(entry)
            else:
                yield entry


def sums(folder: epath.Path, files: Iterable[epath.Path]) -> Sums:
    """Size in bytes and CRC-32 of files in a folder, by their paths relative to it."""
    files = sorted(files)
    with ThreadPoolExecutor(THREADS) as pool:
        return {
            str(path.relative_to(folder)): list(sum_)
            for path, sum_ in zip(files, pool.map(_sum, files), strict=True)
        }


def write_list(folder: epath.Path, name: str, listed: Sums) -> None:
    """Writes one list of checksums into the folder that it describes."""
    (folder / LISTS).mkdir(exist_ok=True)
    (folder / LISTS / name).write_text(json.dumps(listed))


def find_damage(folder: epath.Path, part: int, num_parts: int) -> str | None:
    """What is wrong with the files of a folder, None where they are as they were written.

    Args:
      folder: one that has checksums.
      part: which of the files to look at, so that many processes share them, from 0.
      num_parts: number of such parts.

    Returns:
      The name of the first bad file, with what is wrong with it.
    """
    try:
        shared = _read_list(folder, LAST_LIST)
        names = [name for name in shared if name.startswith(f"{LISTS}/")]
        for name in names:
            if damage := _compare(folder, name, shared[name]):
                return damage
        own = [_read_list(folder, name.removeprefix(f"{LISTS}/")) for name in names]
    except FileNotFoundError as error:
        return f"{_inside(folder, error)} is missing"
    except (OSError, ValueError) as error:
        return f"its checksums can't be read ({error})"
    listed = {name: sum_ for sums_ in (shared, *own) for name, sum_ in sums_.items()}
    mine = sorted(listed)[part::num_parts]
    with ThreadPoolExecutor(THREADS) as pool:
        for damage in pool.map(lambda name: _compare(folder, name, listed[name]), mine):
            if damage:
                return damage
    return None


def record_sum(record: Mapping[str, Any]) -> int:
    """CRC-32 of a record of JSON values, however it is written down."""
    return zlib.crc32(json.dumps(record, sort_keys=True).encode())


def _read_list(folder: epath.Path, name: str) -> Sums:
    listed = json.loads((folder / LISTS / name).read_text())
    if not isinstance(listed, dict) or not all(
        isinstance(sum_, list) and len(sum_) == 2 for sum_ in listed.values()
    ):
        raise ValueError(f"{LISTS}/{name} is no list of checksums")
    return listed


def _compare(folder: epath.Path, name: str, expected: list[int]) -> str | None:
    try:
        size, checksum = _sum(folder / name)
    except FileNotFoundError:
        return f"{name} is missing"
    except OSError as error:
        return f"{name} can't be read ({error.strerror or error})"
    if size != expected[0]:
        return f"{name} has {size} bytes in place of {expected[0]}"
    if checksum != expected[1]:
        return f"{name} has changed since it was written"
    return None


def _sum(path: epath.Path) -> tuple[int, int]:
    size = checksum = 0
    with path.open("rb") as file:
        while block := file.read(BLOCK_BYTES):
            size += len(block)
            checksum = zlib.crc32(block, checksum)
    return size, checksum


def _inside(folder: epath.Path, error: FileNotFoundError) -> str:
    """The path of a missing file relative to a folder; object stores don't supply it."""
    return os.path.relpath(error.filename, folder) if error.filename else f"a list in {LISTS}/"
