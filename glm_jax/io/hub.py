"""Checkpoints of the Hugging Face Hub: its cache on disk, and `hf:OWNER/NAME`.

The cache has a folder `models--OWNER--NAME` for a repository: `snapshots/COMMIT/` with links into
`blobs/`, and `refs/REVISION`, a file that names the commit of a branch or tag. The Hub itself is
asked only for names that start with `hf:`, through the optional package huggingface_hub.
"""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from etils import epath

from glm_jax.errors import RunError, UsageError
from glm_jax.io.paths import is_url, resolve_path

HUB_PREFIX = "hf:"
MAIN = "main"
_REPOSITORY = re.compile(r"([\w.-]+/[\w.-]+)(?:@([\w./-]+))?")
_CACHE_PREFIX = "models--"
# A revision's name has slashes, as that of a pull request (refs/pr/1) has.
_MAX_REVISION_PARTS = 3
# What a checkpoint is read from; a repository may have its weights in other forms, too.
_SAFETENSORS, _TORCH = ".safetensors", ".bin"
_OTHER_FILES = (".json", ".md", ".model", ".py", ".txt", ".bpe")


def is_hub_name(location: str | os.PathLike[str]) -> bool:
    """Whether `location` names a repository of the Hub."""
    text = os.fspath(location)
    return text.startswith(HUB_PREFIX) and not is_url(text)


def checkpoint_path(location: str | os.PathLike[str], name: str = "the checkpoint") -> epath.Path:
    """The path of a checkpoint, which may be named as users of the Hub name one.

    Args:
      location: a path or URL; a folder of the Hub's cache, also with a revision below it, for the
        snapshot in it; or `hf:OWNER/NAME`, also with `@REVISION`, which is downloaded.
      name: the flag or field that it was given by, for messages.

    Raises:
      UsageError: as `resolve_path`; or the repository, the revision or the package that downloads
        it is missing.
      RunError: the Hub can't be reached, and the cache has no copy.
    """
    if is_hub_name(location):
        return epath.Path(_download(os.fspath(location), name))
    return _in_cache(resolve_path(location, name))


def checkpoint_name(path: epath.Path) -> str:
    """What people call a checkpoint: its folder's name; for a snapshot the repository's."""
    repository = path.parent.parent.name
    if path.parent.name == "snapshots" and repository.startswith(_CACHE_PREFIX):
        return repository.rpartition("--")[2]
    return path.name


def _in_cache(path: epath.Path) -> epath.Path:
    """The snapshot that a path into the cache means; other paths as they are."""
    if path.name == "snapshots" and _is_cache(path.parent):
        path = path.parent
    if _is_cache(path):
        return _snapshot(path, MAIN)
    if is_url(path) or path.exists():
        return path
    for parent in list(path.parents)[:_MAX_REVISION_PARTS]:
        if parent.name.startswith(_CACHE_PREFIX) and _is_cache(parent):
            return _snapshot(parent, path.relative_to(parent).as_posix())
    return path


def _is_cache(folder: epath.Path) -> bool:
    """Whether a folder is that of a repository in the cache."""
    if not (folder / "snapshots").is_dir():
        return False
    return (folder / "refs").is_dir() or (folder / "blobs").is_dir()


def _snapshot(cache: epath.Path, revision: str) -> epath.Path:
    """The folder of a revision: a branch, a tag or a commit.

    Raises:
      UsageError: the cache has none.
    """
    reference = cache / "refs" / revision
    commit = reference.read_text().strip() if reference.is_file() else revision
    there = sorted(folder.name for folder in (cache / "snapshots").iterdir())
    found = [name for name in there if commit and name.startswith(commit)]
    if not found and revision == MAIN and not reference.is_file():
        found = there  # a download of one commit leaves no reference
    if len(found) != 1:
        raise UsageError(
            f"{cache} has no snapshot of revision {revision!r}; those that it has are "
            f"{', '.join(there) or 'none'}"
        )
    return cache / "snapshots" / found[0]


def _download(location: str, name: str) -> Path | epath.Path:
    """Downloads what is not in the cache yet; the snapshot's folder.

    Raises:
      UsageError, RunError: as `checkpoint_path`.
    """
    match = _REPOSITORY.fullmatch(location.removeprefix(HUB_PREFIX))
    if match is None:
        raise UsageError(
            f"{name} is {location!r}; expected hf:OWNER/NAME or hf:OWNER/NAME@REVISION"
        )
    repository, revision = match[1], match[2]
    try:
        import huggingface_hub  # pyright: ignore[reportMissingImports]
        from huggingface_hub import constants, errors  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise UsageError(
            f"{location} needs the package huggingface_hub, which is not installed: "
            "pip install 'glm_jax[hub]'"
        ) from error
    endpoint = constants.ENDPOINT
    try:
        files = huggingface_hub.HfApi().list_repo_files(repository, revision=revision)
        chosen = [glob.escape(file) for file in chosen_files(files)]
        return Path(
            huggingface_hub.snapshot_download(repository, revision=revision, allow_patterns=chosen)
        )
    except errors.RevisionNotFoundError as error:
        raise UsageError(f"{repository} at {endpoint} has no revision {revision!r}") from error
    except errors.GatedRepoError as error:
        raise UsageError(
            f"{repository} at {endpoint} is only for users with access: set HF_TOKEN"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise UsageError(
            f"there is no repository {repository} at {endpoint}, or it is private: check the name, "
            "or set HF_TOKEN"
        ) from error
    except errors.HFValidationError as error:
        raise UsageError(f"{name} is {location!r}: {_one_line(error)}") from error
    except Exception as error:  # each version of the package has an HTTP library of its own
        return _downloaded_before(constants, repository, revision, endpoint, error)


def _downloaded_before(
    constants: Any, repository: str, revision: str | None, endpoint: str, error: Exception
) -> epath.Path:
    """The snapshot in the cache, where the Hub did not answer.

    Raises:
      RunError: it has none.
    """
    cache = resolve_path(constants.HF_HUB_CACHE)
    folder = cache / f"{_CACHE_PREFIX}{repository.replace('/', '--')}"
    try:
        if _is_cache(folder):
            return _snapshot(folder, revision or MAIN)
    except UsageError:
        pass
    raise RunError(
        f"{repository} can't be downloaded from {endpoint}, and {cache} has no copy: "
        f"{_one_line(error)}"
    ) from error


def chosen_files(files: Sequence[str]) -> list[str]:
    """What is downloaded of a repository's files: those of its root, and weights in one form."""
    root = [file for file in files if "/" not in file]
    safetensors = any(file.endswith(_SAFETENSORS) for file in root)
    suffixes = (*_OTHER_FILES, _SAFETENSORS if safetensors else _TORCH)
    return [file for file in root if file.endswith(suffixes)]


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
