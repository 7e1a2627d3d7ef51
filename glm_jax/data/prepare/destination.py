"""Where a store is written: whether it can be, and how it appears when it is complete."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from glm_jax.data.prepare.runner import LocalRunner, Runner
from glm_jax.data.prepare.scratch import remove_finished
from glm_jax.data.store.store import METADATA_FILE
from glm_jax.errors import UsageError
from glm_jax.io.atomic import new_folder
from glm_jax.io.files import copy_folder, file_exists, remove_folder
from glm_jax.io.paths import is_tensorstore_location, is_url, resolve_path


def check_runner(out: str, runner: Runner | None) -> None:
    """Makes sure that a runner's processes can all write the store.

    Raises:
      UsageError: they can't.
    """
    if not is_tensorstore_location(out) and not isinstance(runner or LocalRunner(), LocalRunner):
        raise UsageError(
            f"--out is {out}, which only the processes of one machine can write; give other "
            "runners a path that they share, or a URL of gs:// or s3://"
        )


@contextmanager
def new_store(out: str, overwrite: bool) -> Iterator[str]:
    """Give the folder to write the store into: ``out``, or one that is moved or uploaded there."""
    check = partial(check_destination, out, overwrite)
    if not is_url(out):
        with new_folder(Path(out), check) as folder:
            yield str(folder)
    elif is_tensorstore_location(out):
        check()
        remove_folder(out)
        yield out
    else:
        with TemporaryDirectory(prefix="glm-jax-store-") as folder:
            yield folder
            check()
            remove_folder(out)
            copy_folder(folder, out, last=METADATA_FILE)


def check_destination(out: str | os.PathLike[str], overwrite: bool) -> None:
    """Makes sure that a store can be written to ``out``, a path or URL.

    Raises:
      UsageError: a store is there and not to be replaced, or something that is no store.
    """
    out = str(resolve_path(out, "--out"))
    finished = f"{out}/{METADATA_FILE}"
    if file_exists(finished):
        if not overwrite:
            remove_finished(out, finished)
            raise UsageError(
                f"there is a token store at {out} already; name another or overwrite it"
            )
    elif not is_url(out):
        path = Path(out)
        if path.exists() and not (path.is_dir() and not any(path.iterdir())):
            raise UsageError(f"{out} exists and is not a token store")
