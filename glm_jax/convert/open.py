"""Finds out what kind of checkpoint a path is."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from etils import epath

from glm_jax.checkpoints.record import STATE_ITEM, find_step
from glm_jax.convert.layouts.huggingface import HuggingFaceSource
from glm_jax.convert.layouts.native import NativeSource
from glm_jax.convert.layouts.original import OriginalSource
from glm_jax.convert.layouts.rank_files import TRACKERS, rank_file_name
from glm_jax.convert.weights import WeightSource
from glm_jax.errors import UsageError
from glm_jax.io.files import local_copy
from glm_jax.io.paths import is_tensorstore_location, is_url, local_path, resolve_path


def open_source(
    path: str | os.PathLike[str], num_attention_heads: int | None = None
) -> WeightSource:
    """Opens the checkpoint at a path, whatever its kind.

    Args:
      path: a run folder, its checkpoints/ or one checkpoint in it; an original checkpoint folder,
        one of its tags or a file of it; a Hugging Face folder.
      num_attention_heads: H, where the checkpoint doesn't record it.

    Raises:
      UsageError: nothing of these is there, it is damaged, or records another number of heads.
    """
    resolved = resolve_path(path, "the checkpoint")
    source = _open(resolved, path, num_attention_heads)
    recorded = source.facts.num_attention_heads
    if num_attention_heads is not None and recorded not in (None, num_attention_heads):
        source.__exit__()
        raise UsageError(
            f"num_attention_heads is given as {num_attention_heads}, but {path} records {recorded}"
        )
    return source


def _open(
    path: epath.Path, given: str | os.PathLike[str], num_attention_heads: int | None
) -> WeightSource:
    if not path.exists():
        raise UsageError(f"there is no checkpoint at {given}: no such file or folder")
    if not path.is_file() and is_native(path):
        return NativeSource(path)
    local = local_path(path, "a checkpoint of the original code or of Hugging Face")
    if local.is_file():
        return OriginalSource(local, num_attention_heads)
    if any((local / name).is_file() for name in TRACKERS) or any(local.glob("mp_rank_*")):
        return OriginalSource(local, num_attention_heads)
    if (local / "config.json").is_file():
        return HuggingFaceSource(local, num_attention_heads)
    raise UsageError(
        f"{given} is no checkpoint: it has no checkpoints/ (a run folder), no {STATE_ITEM}/ (one "
        f"of its checkpoints), no {' or '.join(TRACKERS)} or {rank_file_name(0)} (the original "
        "code's), and no config.json (Hugging Face)"
    )


@contextmanager
def readable_checkpoint(path: str | os.PathLike[str]) -> Iterator[epath.Path]:
    """A checkpoint where it can be read: itself, or a temporary local copy of one at a URL.

    Orbax reads our own checkpoints at local paths, gs:// and s3:// directly. Anything else at a URL
    is copied; of a run folder, the newest checkpoint only.

    Raises:
      UsageError: there is nothing at the URL, or it can't be read.
    """
    resolved = resolve_path(path, "the checkpoint")
    if not is_url(resolved):
        yield resolved
        return
    native = resolved.is_dir() and is_native(resolved)
    if native and is_tensorstore_location(resolved):
        yield resolved
        return
    with local_copy(find_step(resolved) if native else resolved) as copy:
        yield resolve_path(copy)


def is_native(path: epath.Path) -> bool:
    """Whether a folder is a run folder, its checkpoints/, or one checkpoint of it."""
    if (path / "checkpoints").is_dir() or (path / STATE_ITEM).is_dir():
        return True
    return any(step.name.isdecimal() and (step / STATE_ITEM).is_dir() for step in path.iterdir())
