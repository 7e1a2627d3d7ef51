"""A checkpoint of any kind as a language model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import jax
import numpy as np
from etils import epath
from jax.sharding import Mesh
from jaxtyping import PyTree

from glm_jax.convert.load import load_glm
from glm_jax.errors import UsageError
from glm_jax.finetune.prepare import find_tokenizer
from glm_jax.io.paths import resolve_path
from glm_jax.language_model.config import LanguageModelConfig, LanguageModelRunConfig
from glm_jax.language_model.lambada import lambada_row, read_lambada
from glm_jax.language_model.perplexity import (
    document_losses,
    perplexities,
    read_documents,
    rows_of_documents,
)
from glm_jax.language_model.score import score_rows
from glm_jax.language_model.windows import WindowLayout
from glm_jax.model import GLM
from glm_jax.parallel.mesh import check_batch_size, make_mesh
from glm_jax.tokenizer import Tokenizer


@dataclass(frozen=True)
class LanguageModelResult:
    """What an evaluation found.

    Attributes:
      metrics: by name, the published one first.
      losses: of the scored tokens of every document, in nats; empty for LAMBADA.
    """

    metrics: Mapping[str, float]
    losses: Sequence[np.ndarray] = ()


def evaluate_language_model(
    config: LanguageModelRunConfig, checkpoint: epath.Path
) -> LanguageModelResult:
    """Scores a file; all processes take part.

    Args:
      config: what is scored, and how.
      checkpoint: anything that `glm_jax.load` opens.

    Raises:
      UsageError: the file, the tokenizer or the lengths do not fit.
    """
    settings = config.language_model
    mesh = make_mesh(config.mesh)
    check_batch_size(settings.batch_size, mesh)
    tokenizer = find_tokenizer(config.tokenizer, str(checkpoint))
    file = resolve_path(settings.data, "language_model.data")
    heads = settings.num_attention_heads or None
    model, params = load_glm(checkpoint, num_attention_heads=heads, mesh=mesh, ignore_extra=True)
    length = sequence_length_of(settings, model.config.max_sequence_length)
    with jax.set_mesh(mesh):
        if settings.name == "lambada":
            return _lambada(settings, file, model, params, tokenizer, mesh, length)
        return _documents(settings, file, model, params, tokenizer, mesh, length)


def sequence_length_of(settings: LanguageModelConfig, num_positions: int) -> int:
    """L of the rows.

    Raises:
      UsageError: the network has fewer positions.
    """
    length = settings.sequence_length or num_positions
    if length > num_positions:
        raise UsageError(
            f"language_model.sequence_length is {length}, but the network has positions only for "
            f"{num_positions}"
        )
    return length


def _lambada(
    settings: LanguageModelConfig,
    file: epath.Path,
    model: GLM,
    params: PyTree,
    tokenizer: Tokenizer,
    mesh: Mesh,
    length: int,
) -> LanguageModelResult:
    rows = [
        lambada_row(passage, tokenizer, length, unidirectional=settings.unidirectional)
        for passage in read_lambada(file)
    ]
    scores = score_rows(model, params, rows, mesh, settings.batch_size)
    right = [bool(row.right.all()) for row in scores]
    losses = [-float(row.log_probs.sum()) for row in scores]
    return LanguageModelResult(
        {
            "accuracy": 100 * float(np.mean(right)),
            "word_perplexity": float(np.exp(np.mean(losses))),
            "num_passages": float(len(rows)),
        }
    )


def _documents(
    settings: LanguageModelConfig,
    file: epath.Path,
    model: GLM,
    params: PyTree,
    tokenizer: Tokenizer,
    mesh: Mesh,
    length: int,
) -> LanguageModelResult:
    stride = settings.stride or max(length // 4, 1)
    layout = WindowLayout(tokenizer.special, length, stride, settings.unidirectional)
    documents = read_documents(file, settings.name, tokenizer)
    rows, numbers = rows_of_documents(documents, layout)
    scores = score_rows(model, params, rows, mesh, settings.batch_size)
    losses = document_losses(scores, numbers, len(documents))
    return LanguageModelResult(perplexities(documents, losses), losses)
