"""Where checkpoints can be kept."""

from __future__ import annotations

import os

import jax
from etils import epath

from glm_jax.errors import UsageError
from glm_jax.io.paths import is_tensorstore_location, resolve_path


def check_checkpoint_folder(folder: str | os.PathLike[str]) -> epath.Path:
    """The absolute path of a folder that checkpoints can be kept in, or below.

    Raises:
      UsageError: several processes can't write to URLs of this scheme.
    """
    path = resolve_path(folder, "the checkpoint folder")
    if not is_tensorstore_location(path):
        check_one_process(path)
    return path


def check_one_process(url: epath.Path) -> None:
    """Makes sure that the run has one process, whose local folder can be mirrored at the URL.

    Raises:
      UsageError: it has several.
    """
    if jax.process_count() > 1:
        raise UsageError(
            f"the checkpoints of a run with several processes can't be kept at {url}; expected "
            "a local path that all processes share, or a URL of gs:// or s3://"
        )
