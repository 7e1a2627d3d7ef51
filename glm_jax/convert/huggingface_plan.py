"""What a Hugging Face folder of GLM gets besides its weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from glm_jax.convert.dimensions import WORD_EMBEDDING
from glm_jax.convert.layouts.head_tensors import has_native_prompts, read_native_head
from glm_jax.convert.layouts.huggingface_fields import (
    POOL_TOKENS,
    head_fields,
    our_fields,
    published_fields,
)
from glm_jax.convert.layouts.huggingface_folder import write_folder_files
from glm_jax.convert.layouts.native import NativeCheckpoint
from glm_jax.convert.model_card import ModelCard, run_scores
from glm_jax.convert.side_files import folder_of
from glm_jax.convert.weights import WeightSource
from glm_jax.errors import RunError, UsageError
from glm_jax.model.config import GLMConfig
from glm_jax.tokenizer import Tokenizer, load_tokenizer
from glm_jax.tokenizer.glm_tokenizer import GLMTokenizer


@dataclasses.dataclass(frozen=True)
class HuggingFacePlan:
    """The fields of config.json, and the files to write.

    Attributes:
      fields: those that replace others.
      config: of the network.
      tokenizer: to be written.
      card: None for the published layout, which has no files of ours.
      notes: for the report.
      head: of a classifier, by its published names.
    """

    fields: Mapping[str, Any]
    config: GLMConfig
    tokenizer: GLMTokenizer | None
    card: ModelCard | None
    notes: tuple[str, ...] = ()
    head: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)

    def write(self, folder: Path) -> None:
        """Writes code, tokenizer and model card, where the layout has them."""
        if self.card is not None:
            card = dataclasses.replace(self.card, name=folder.name)
            write_folder_files(folder, self.config, self.tokenizer, card)


def plan_huggingface(
    opened: WeightSource,
    changed: WeightSource,
    config: Any,
    published: bool,
    tokenizer: Tokenizer | None,
) -> HuggingFacePlan:
    """Looks for the tokenizer and for what is known of the training.

    Args:
      opened: the source.
      changed: the same as it is written.
      config: of the network.
      published: whether the folder is for the published repositories' code.
      tokenizer: the one given; None to look for it.

    Raises:
      UsageError: Hugging Face's side has no such network, or the tokenizer is of another one.
    """
    if not isinstance(config, GLMConfig):
        raise UsageError(
            f"{opened.path} has relative positions, for which there is no class in Hugging Face's "
            "transformers"
        )
    if config.quantization != "none":
        raise UsageError(
            f"{opened.path} has quantized matrices, which the PyTorch network can't read; "
            "--quantize=none expands them"
        )
    head, head_fields, notes = _head(opened, changed.tensors[WORD_EMBEDDING].dtype)
    if published:
        fields = published_fields(config, opened.metadata.huggingface_config) | head_fields
        return HuggingFacePlan(fields, config, None, None, notes, head)
    found, note = _tokenizer(opened, tokenizer, config)
    card = ModelCard(
        name="",
        config=config,
        dtype=changed.tensors[WORD_EMBEDDING].dtype.name,
        source=opened.kind,
        iteration=opened.metadata.iteration,
        settings=opened.record.get("configuration", {})
        if isinstance(opened, NativeCheckpoint)
        else {},
        scores=run_scores(folder_of(opened)) if isinstance(opened, NativeCheckpoint) else {},
        has_tokenizer=found is not None,
    )
    fields = our_fields(config, found) | head_fields
    return HuggingFacePlan(fields, config, found, card, (*note, *notes), head)


def _head(
    opened: WeightSource, dtype: np.dtype
) -> tuple[dict[str, np.ndarray], dict[str, Any], tuple[str, ...]]:
    """The head that a finetuning run has trained, the fields that go with it, and notes."""
    if not isinstance(opened, NativeCheckpoint):
        return {}, {}, ()
    if has_native_prompts(opened.step_folder):
        return {}, {}, ("left out are the run's continuous prompts: transformers has none",)
    head = read_native_head(opened.step_folder, dtype)
    if not head:
        return {}, {}, ()
    pool = opened.record.get("configuration", {}).get("task", {}).get("pool", "cls")
    if pool not in POOL_TOKENS:
        note = f"left out is the run's head: with task.pool {pool!r}, transformers has no class"
        return {}, {}, (f"{note} for it",)
    fields = head_fields(len(head["out_proj.bias"]), pool)
    note = "the run's head is in dense and out_proj, for AutoModelForSequenceClassification"
    return head, fields, (note,)


def _tokenizer(
    opened: WeightSource, given: Tokenizer | None, config: GLMConfig
) -> tuple[GLMTokenizer | None, tuple[str, ...]]:
    """The tokenizer, and a note where there is none."""
    try:
        found = given or load_tokenizer(str(folder_of(opened)))
    except (UsageError, RunError) as error:
        return None, (f"the folder has no tokenizer: {error}",)
    if not isinstance(found, GLMTokenizer):
        return None, ("the folder has no tokenizer: that of ChatGLM is no tokenizer of GLM",)
    if max(found.special.values()) >= config.vocab_size or found.vocab_size > config.vocab_size:
        raise UsageError(
            f"the tokenizer has {found.vocab_size} tokens, but the model's vocabulary only "
            f"{config.vocab_size}"
        )
    return found, ()
