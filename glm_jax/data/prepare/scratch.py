"""Where a store's shards are kept until the store is complete, and found again after a kill."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from glm_jax.io.files import folder_names, make_folder, remove_folder
from glm_jax.io.lock import FolderLock
from glm_jax.io.paths import is_url, resolve_path


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
      RunError: another process is preparing the same store, or the folder can't be written to.
    """
    scratch = scratch_location(out)
    with FolderLock(resolve_path(scratch), in_use=f"another process is preparing {out}:"):
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


def remove_finished(out: str, finished: str) -> None:
    """Remove shards that were left when a run was killed just after its store was complete.

    Args:
      out: the store's path; shards next to a URL are left.
      finished: the file that the store was finished with.
    """
    scratch = Path(scratch_location(out))
    if is_url(out) or not scratch.is_dir():
        return
    jobs = [path for path in scratch.iterdir() if path.is_dir()]
    newest = max((path.stat().st_mtime_ns for path in jobs), default=0)
    if newest <= Path(finished).stat().st_mtime_ns:
        remove_folder(str(scratch))
