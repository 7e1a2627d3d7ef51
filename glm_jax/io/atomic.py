"""A folder that is whole or not there, whatever kills the process that makes it."""

import fcntl
import glob
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path


@contextmanager
def new_folder(out: Path, check_destination: Callable[[], None]) -> Iterator[Path]:
    """Give a folder to fill, which becomes ``out`` when the block ends without an exception.

    It is made beside ``out`` and moved there by renaming. What killed processes left there is
    removed, and a folder that one of them was about to replace is put back.

    Args:
      out: an absolute path; what is there is replaced.
      check_destination: called before the start and before the move; raises to keep ``out``.

    Raises:
      OSError: the folder beside ``out`` cannot be made, locked or moved.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    folder = out.with_name(f".{out.name}.unfinished-{uuid.uuid4().hex}")
    with ExitStack() as stack:
        with _locked(out.parent):
            _tidy(out)
            check_destination()
            folder.mkdir()
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
            # Held to the end: by this lock, others know that the folder is in use.
            stack.enter_context(_locked(folder))
        yield folder
        with _locked(out.parent):
            check_destination()
            _move(folder, out)


def _tidy(out: Path) -> None:
    for leftover in out.parent.glob(f".{glob.escape(out.name)}.unfinished-*"):
        with suppress(BlockingIOError), _locked(leftover, wait=False):
            shutil.rmtree(leftover)
    replaced = _replaced(out)
    if out.exists():
        shutil.rmtree(replaced, ignore_errors=True)
    elif replaced.exists():
        replaced.rename(out)


def _move(folder: Path, out: Path) -> None:
    replaced = _replaced(out)
    if out.exists():
        out.rename(replaced)
    folder.rename(out)
    shutil.rmtree(replaced, ignore_errors=True)


def _replaced(out: Path) -> Path:
    """Where the old ``out`` is between its own move and the new one's."""
    return out.with_name(f".{out.name}.replaced")


@contextmanager
def _locked(folder: Path, *, wait: bool = True) -> Iterator[None]:
    """Hold the lock of a folder, which ends with the process however that ends.

    Raises:
      BlockingIOError: another process holds it, unless ``wait``.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)
