"""A conversion from its source to its checked destination, in the order it happens."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from glm_jax.convert.changes import Changes
from glm_jax.convert.checks import FaultWatch, check_space, refuse_existing
from glm_jax.convert.layouts.chatglm_prefix_writer import (
    PrefixDestination,
    PrefixFolder,
    PrefixPart,
)
from glm_jax.convert.layouts.chatglm_writer import ChatGLMDestination
from glm_jax.convert.layouts.huggingface_fields import check_epsilon
from glm_jax.convert.layouts.huggingface_writer import HuggingFaceDestination
from glm_jax.convert.layouts.native_writer import NativeDestination
from glm_jax.convert.layouts.original_writer import OriginalDestination
from glm_jax.convert.layouts.sharded_writer import MAX_SHARD_BYTES
from glm_jax.convert.open import open_source, readable_checkpoint
from glm_jax.convert.plan import P_TUNING, Form, Plan, plan_conversion
from glm_jax.convert.report import Report, describe_heads
from glm_jax.convert.side_files import copy_side_files, folder_of, write_evaluation_settings
from glm_jax.convert.transfer import Progress, compare, copy_tensors
from glm_jax.convert.weights import WeightDestination, WeightSource
from glm_jax.errors import RunError, UsageError
from glm_jax.io.atomic import new_folder
from glm_jax.io.paths import local_path, resolve_path
from glm_jax.model.chatglm_config import ChatGLMConfig
from glm_jax.model.config import GLMConfig
from glm_jax.tokenizer import Tokenizer

# Shows the progress of a stage: (what is done, bytes in all) -> a context that gives `Progress`.
Stages = Callable[[str, int], AbstractContextManager[Progress]]

# Checking transposes arrays and computes checksums, and so is bound by the processor.
CHECKING_THREADS = 2


def convert(
    path: str | os.PathLike[str],
    out: str | os.PathLike[str],
    kind: str,
    *,
    stages: Stages,
    model_parallel_size: int = 1,
    changes: Changes | None = None,
    num_attention_heads: int | None = None,
    ignore_extra: bool = False,
    base: str | os.PathLike[str] | None = None,
    file_format: str = "safetensors",
    max_shard_bytes: int = MAX_SHARD_BYTES,
    published: bool = False,
    tokenizer: Tokenizer | None = None,
) -> Report:
    """Writes the weights at `path` in another form, tensor by tensor, reads them back and compares.

    `out` appears when all of that is done.

    Args:
      path: an original checkpoint, a Hugging Face folder or a run folder.
      out: a folder that doesn't exist or is empty.
      kind: "native", "original", "huggingface", or "p_tuning" for the prefix of P-tuning v2 alone.
      stages: shows the progress.
      model_parallel_size: files that an original checkpoint is split into.
      changes: what is changed on the way.
      num_attention_heads: H, where it isn't recorded and isn't hidden / 64.
      ignore_extra: leaves out, instead of refusing, tensors that GLM doesn't have.
      base: where `path` holds a prefix of P-tuning v2, the network that it was trained for.
      file_format: of the weights in a Hugging Face folder, one of `FILE_FORMATS`.
      max_shard_bytes: of each of these files; a larger tensor has a file of its own.
      published: whether a Hugging Face folder is written for the published repositories' code, and
        without code, tokenizer and model card of ours.
      tokenizer: of a Hugging Face folder; None for the one that is with the checkpoint, if any.

    Raises:
      UsageError: `path` holds no checkpoint that can be written so, or `out` is taken.
      RunError: the disk failed, or what was written isn't what was read.
    """
    started, named = time.monotonic(), out
    refuse_existing(out := local_path(resolve_path(out, "DESTINATION"), "DESTINATION"))
    with (
        readable_checkpoint(path) as local,
        open_source(local, num_attention_heads, ignore_extra=ignore_extra, base=base) as opened,
    ):
        ranks, files = model_parallel_size, (file_format, max_shard_bytes)
        form = Form(kind, ranks, *files, published=published, tokenizer=tokenizer)
        plan = plan_conversion(opened, form, changes or Changes(), num_attention_heads)
        fault = FaultWatch()
        side_files = _write_folder(out, plan, stages, fault)
        return Report(
            source=path,
            out=named,
            heads=describe_heads(opened.metadata, given=num_attention_heads is not None),
            side_files=side_files,
            seconds=time.monotonic() - started,
            fault=fault.sentence,
            **plan.for_report(),
        )


def _write_folder(out: Path, plan: Plan, stages: Stages, fault: FaultWatch) -> tuple[str, ...]:
    """Writes all, and then gives the folder its name; returns the side files."""
    try:
        check_space(out, plan.num_bytes)
        with new_folder(out, partial(refuse_existing, out)) as folder:
            return _write_and_compare(folder, plan, stages, fault)
    except OSError as error:
        raise RunError(f"{out} can't be written: {error}") from error


def _write_and_compare(
    folder: Path, plan: Plan, stages: Stages, fault: FaultWatch
) -> tuple[str, ...]:
    """Writes all tensors and side files, and reads the tensors back; returns the side files."""
    checksums: dict[str, int] = {}
    destination = _new_destination(folder, plan, checksums)
    with stages("converting", plan.num_bytes) as progress:
        copy_tensors(plan.source, destination, checksums, progress, fault.inspect)
        destination.finish()
    if plan.huggingface is not None:
        plan.huggingface.write(folder)
    side_files = _copy_side_files(plan.opened, plan.config, folder, plan.form.kind)
    with stages("checking", plan.num_bytes) as progress:
        _read_back(folder, plan, checksums, progress)
    return side_files


def _copy_side_files(opened: WeightSource, config: Any, folder: Path, kind: str) -> tuple[str, ...]:
    """Copies the side files of a checkpoint; returns the files' names."""
    written = "huggingface" if kind == P_TUNING else kind
    copied = copy_side_files(folder_of(opened), opened.kind, folder, written)
    if kind == "native" and opened.kind != "native" and type(config) is GLMConfig:
        write_evaluation_settings(folder, config)
    return tuple(map(str, copied))


def _read_back(folder: Path, plan: Plan, checksums: Mapping[str, int], progress: Progress) -> None:
    """Compares what was written with what was read.

    Raises:
      RunError: it isn't the same.
    """

    def opened() -> WeightSource:
        if plan.form.kind == P_TUNING:
            return PrefixFolder(folder, plan.config.num_layers)
        return open_source(folder, plan.config.num_attention_heads)

    with ExitStack() as stack:
        written = [stack.enter_context(opened()) for _ in range(CHECKING_THREADS)]
        compare(written, plan.source, checksums, progress)


def _new_destination(folder: Path, plan: Plan, checksums: Mapping[str, int]) -> WeightDestination:
    tensors, metadata, order = plan.source.tensors, plan.metadata, plan.order
    if plan.form.kind == "native":
        fields = dataclasses.asdict(plan.config)
        return NativeDestination(folder, order, tensors, metadata, fields, checksums)
    if plan.form.kind == "original":
        if _is_no_original(plan.config):
            raise UsageError(
                f"{plan.opened.path} can't be written as a checkpoint of the original GLM code, "
                "which has neither ChatGLM nor quantized matrices"
            )
        check_epsilon(plan.config, "the original GLM code")
        heads, ranks = plan.config.num_attention_heads, plan.form.model_parallel_size
        return OriginalDestination(folder, order, tensors, metadata.iteration, ranks, heads)
    if isinstance(plan.source, PrefixPart):
        network = plan.source.network
        return PrefixDestination(
            folder, order, network, metadata, file_format=plan.form.file_format
        )
    if plan.huggingface is None:
        return ChatGLMDestination(
            folder, order, tensors, metadata, file_format=plan.form.file_format
        )
    return HuggingFaceDestination(
        folder,
        order,
        tensors,
        metadata,
        file_format=plan.form.file_format,
        max_shard_bytes=plan.form.max_shard_bytes,
        fields=plan.huggingface.fields,
        head=plan.huggingface.head,
    )


def _is_no_original(config: Any) -> bool:
    return isinstance(config, ChatGLMConfig) or getattr(config, "quantization", "none") != "none"
