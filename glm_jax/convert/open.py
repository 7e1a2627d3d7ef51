"""Finds out what kind of checkpoint a path is."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from etils import epath

from glm_jax.checkpoints.record import STATE_ITEM, find_step, read_record
from glm_jax.convert.base_weights import read_base
from glm_jax.convert.layouts.adapted import AdaptedSource
from glm_jax.convert.layouts.chatglm import ChatGLMSource
from glm_jax.convert.layouts.chatglm_config import MODEL_TYPE
from glm_jax.convert.layouts.chatglm_names import is_chatglm
from glm_jax.convert.layouts.chatglm_prefix import (
    IS_PREFIX_ONLY,
    PrefixedSource,
    is_prefix_only,
)
from glm_jax.convert.layouts.huggingface import HuggingFaceSource
from glm_jax.convert.layouts.huggingface_config import CONFIG_FILE, GLM_MODEL_TYPE
from glm_jax.convert.layouts.huggingface_files import SAFETENSORS_SUFFIX, HuggingFaceFiles
from glm_jax.convert.layouts.native import NativeSource
from glm_jax.convert.layouts.original import OriginalSource
from glm_jax.convert.layouts.rank_files import TRACKERS, rank_file_name
from glm_jax.convert.weights import WeightSource
from glm_jax.errors import UsageError
from glm_jax.io.files import local_copy
from glm_jax.io.hub import checkpoint_path
from glm_jax.io.paths import is_tensorstore_location, is_url, local_path, resolve_path


def open_source(
    path: str | os.PathLike[str],
    num_attention_heads: int | None = None,
    *,
    ignore_extra: bool = False,
    base: str | os.PathLike[str] | None = None,
) -> WeightSource:
    """Opens the checkpoint at a path, whatever its kind.

    Args:
      path: a run folder, its checkpoints/ or one checkpoint in it; an original checkpoint folder,
        one of its tags or a file of it; a Hugging Face folder, or one file with its weights; or
        what `checkpoint_path` takes.
      num_attention_heads: H, where the checkpoint doesn't record it.
      ignore_extra: leaves out tensors that GLM doesn't have, which are refused otherwise. Those of
        Hugging Face folders of GLM, which have heads, always are left out.
      base: the network that the prefix of P-tuning v2 at `path` was trained for.

    Raises:
      UsageError: nothing of these is there, it is damaged, records another number of heads, or has
        extra tensors.
    """
    resolved = checkpoint_path(path)
    if base is None:
        source = _open(resolved, path, num_attention_heads, ignore_extra)
    else:
        source = _open_prefixed(resolved, base, num_attention_heads, ignore_extra)
    recorded = source.metadata.num_attention_heads
    if num_attention_heads is not None and recorded not in (None, num_attention_heads):
        source.__exit__()
        raise UsageError(
            f"num_attention_heads is given as {num_attention_heads}, but {path} records {recorded}"
        )
    return source


def _open(
    path: epath.Path,
    given: str | os.PathLike[str],
    num_attention_heads: int | None,
    ignore_extra: bool,
) -> WeightSource:
    if not path.exists():
        raise UsageError(f"there is no checkpoint at {given}: no such file or folder")
    if not path.is_file() and is_native(path):
        return _open_native(path)
    local = local_path(path, "a checkpoint of the original code or of Hugging Face")
    if local.is_file():
        huggingface = _is_huggingface_file(local)
    elif any((local / name).is_file() for name in TRACKERS) or any(local.glob("mp_rank_*")):
        huggingface = False
    elif (local / CONFIG_FILE).is_file():
        huggingface = True
    else:
        inner = sorted(file.parent.name for file in local.glob(f"*/{CONFIG_FILE}"))
        raise UsageError(
            f"{given} is no checkpoint: it has no checkpoints/ (a run folder), no {STATE_ITEM}/ "
            f"(one of its checkpoints), no {' or '.join(TRACKERS)} or {rank_file_name(0)} (the "
            f"original code's), and no {CONFIG_FILE} (Hugging Face)"
            + (f", which its sub-folders {', '.join(inner[:5])} have" if inner else "")
        )
    if huggingface and not _is_chatglm(local):
        return HuggingFaceSource(local, num_attention_heads)
    source = ChatGLMSource if huggingface else OriginalSource
    return source(local, num_attention_heads, ignore_extra=ignore_extra)


def _open_prefixed(
    path: epath.Path,
    base: str | os.PathLike[str],
    num_attention_heads: int | None,
    ignore_extra: bool,
) -> WeightSource:
    """Opens a folder of P-tuning v2 over its base."""
    if not path.exists():
        raise UsageError(f"there is no checkpoint at {path}: no such file or folder")
    local = local_path(path, "a folder of P-tuning v2")
    resolved = checkpoint_path(base, "the base weights")
    opened = _open(resolved, base, num_attention_heads, ignore_extra)
    try:
        return PrefixedSource(local, opened)
    except BaseException:
        opened.__exit__()
        raise


def _open_native(path: epath.Path) -> WeightSource:
    """Opens a checkpoint of ours, with its base weights where it holds only what was trained."""
    step_folder = find_step(path)
    base = read_base(read_record(step_folder), step_folder)
    if base is None:
        return NativeSource(path)
    resources = ExitStack()
    try:
        found = base.find(step_folder)
        base = dataclasses.replace(base, path=os.fspath(found))
        folder = resources.enter_context(readable_checkpoint(found))
        source = open_source(folder, base.num_attention_heads, ignore_extra=True)
        return AdaptedSource(path, base, resources.enter_context(source), resources)
    except BaseException:
        resources.close()
        raise


def check_complete(path: str | os.PathLike[str]) -> None:
    """Makes sure that a path holds a network, before anything else is looked for with it.

    Raises:
      UsageError: it holds a prefix of P-tuning v2 only.
    """
    if needs_base(path):
        raise UsageError(f"{path} {IS_PREFIX_ONLY}")


def needs_base(path: str | os.PathLike[str]) -> bool:
    """Whether a path holds a prefix of P-tuning v2 only, which needs a base.

    Raises:
      UsageError: it is a Hugging Face folder with files that are missing or damaged.
    """
    local = Path(path)
    if local.is_file():
        is_huggingface = _is_huggingface_file(local)
    else:  # the folder of a run has a config.json as well
        is_huggingface = (local / CONFIG_FILE).is_file() and not is_native(epath.Path(local))
    if not is_huggingface:
        return False
    files = HuggingFaceFiles(local)
    files.close()
    return is_prefix_only(files.tensors)


def _is_chatglm(path: Path) -> bool:
    """Whether a Hugging Face folder or file is of ChatGLM, and not of GLM.

    Raises:
      UsageError: a file of it is missing or damaged.
    """
    files = HuggingFaceFiles(path)
    files.close()
    named = (files.config or {}).get("model_type")
    return named == MODEL_TYPE or (named != GLM_MODEL_TYPE and is_chatglm(files.tensors))


def _is_huggingface_file(file: Path) -> bool:
    """Whether one file is of Hugging Face's kind; else it is a torch file of the original code.

    Raises:
      UsageError: it is a JSON file and not weights.
    """
    if file.suffix == ".json":
        raise UsageError(f"{file} has no weights in it: give the folder {file.parent}")
    if file.suffix == ".bin":
        return (file.parent / CONFIG_FILE).is_file()
    return file.suffix == SAFETENSORS_SUFFIX


@contextmanager
def readable_checkpoint(path: str | os.PathLike[str]) -> Iterator[epath.Path]:
    """A checkpoint where it can be read: itself, or a temporary local copy of one at a URL.

    Orbax reads our own checkpoints at local paths, gs:// and s3:// directly. Anything else at a URL
    is copied; of a run folder, the newest checkpoint only.

    Raises:
      UsageError: there is nothing at the URL, or it can't be read.
    """
    resolved = checkpoint_path(path)
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
