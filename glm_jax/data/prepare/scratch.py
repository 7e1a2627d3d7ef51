"""Where a store's shards are kept until the store is complete, and found again after a kill."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from glm_jax.errors import RunError
from glm_jax.io.files import folder_names, make_folder, remove_folder
from glm_jax.io.paths import is_url


def scratch_location(out: str) -> str:
    """The folder next to a store, a path or URL, for the shards that it is made of."""
    parent, _, name = out.rstrip("/").rpartition("/")
    return f"{parent}/.{name}.shards"


@contextmanager
def shard_folder(out: str, job: str) -> Iterator[str]:
    """Give the folder for the shards of a job, which may hold some from runs that were killed.

    Those of other jobs for the same store are removed. A block that ends without an exception
    leaves no folder; one that fails leaves it if it holds a shard.

    Args:
      out: the store, an absolute path or URL.
      job: what the shards depend on, as a name.

    Raises:
      RunError: another process on this machine is preparing the same store.
    """
    scratch = scratch_location(out)
    make_folder(scratch)
    with _locked(scratch, out):
        for name in folder_names(scratch):
            if name != job:
                remove_folder(f"{scratch}/{name}")
        folder = f"{scratch}/{job}"
        make_folder(folder)
        try:
            yield folder
        except BaseException:
            if not any(name.endswith(".npz") for name in folder_names(folder)):
                remove_folder(scratch)
            raise
        remove_folder(scratch)


@contextmanager
def _locked(scratch: str, out: str) -> Iterator[None]:
    """Hold the folder's lock, which ends with the process however that ends; buckets have none."""
    if is_url(scratch):
        yield
        return
    descriptor = os.open(scratch, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        raise RunError(f"another process is preparing {out}") from error
    finally:
        os.close(descriptor)


def remove_finished(out: str, finished: str) -> None:
    """Remove shards that were left when a run was killed just after its store was complete.

    Args:
      out: the store's path; shards next to a URL are left.
      finished: the file that the store was finished with.
    """
    scratch = Path(scratch_location(out))
    if is_url(out) or not scratch.is_dir():
        return
    newest = max((path.stat().st_mtime_ns for path in scratch.iterdir()), default=0)
    if newest <= Path(finished).stat().st_mtime_ns:
        remove_folder(str(scratch))
