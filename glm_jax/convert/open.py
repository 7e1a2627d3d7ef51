"""Finds out what kind of checkpoint a path is."""

from __future__ import annotations

from pathlib import Path

from glm_jax.checkpoints.record import STATE_ITEM
from glm_jax.convert.layouts.huggingface import HuggingFaceSource
from glm_jax.convert.layouts.native import NativeSource
from glm_jax.convert.layouts.original import OriginalSource
from glm_jax.convert.layouts.rank_files import TRACKERS, rank_file_name
from glm_jax.convert.weights import WeightSource
from glm_jax.errors import UsageError


def open_source(path: str | Path, num_attention_heads: int | None = None) -> WeightSource:
    """Opens the checkpoint at a path, whatever its kind.

    Args:
      path: a run folder, its checkpoints/ or one checkpoint in it; an original checkpoint folder,
        one of its tags or a file of it; a Hugging Face folder.
      num_attention_heads: H, where the checkpoint doesn't record it.

    Raises:
      UsageError: nothing of these is there, it is damaged, or records another number of heads.
    """
    source = _open(Path(path), num_attention_heads)
    recorded = source.facts.num_attention_heads
    if num_attention_heads is not None and recorded not in (None, num_attention_heads):
        source.__exit__()
        raise UsageError(
            f"num_attention_heads is given as {num_attention_heads}, but {path} records {recorded}"
        )
    return source


def _open(path: Path, num_attention_heads: int | None) -> WeightSource:
    if not path.exists():
        raise UsageError(f"there is no checkpoint at {path}: no such file or folder")
    if path.is_file():
        return OriginalSource(path, num_attention_heads)
    if is_native(path):
        return NativeSource(path)
    if any((path / name).is_file() for name in TRACKERS) or any(path.glob("mp_rank_*")):
        return OriginalSource(path, num_attention_heads)
    if (path / "config.json").is_file():
        return HuggingFaceSource(path, num_attention_heads)
    raise UsageError(
        f"{path} is no checkpoint: it has no checkpoints/ (a run folder), no {STATE_ITEM}/ (one of "
        f"its checkpoints), no {' or '.join(TRACKERS)} or {rank_file_name(0)} (the original "
        "code's), and no config.json (Hugging Face)"
    )


def is_native(path: Path) -> bool:
    """Whether a folder is a run folder, its checkpoints/, or one checkpoint of it."""
    if (path / "checkpoints").is_dir() or (path / STATE_ITEM).is_dir():
        return True
    return any(step.name.isdecimal() and (step / STATE_ITEM).is_dir() for step in path.iterdir())
