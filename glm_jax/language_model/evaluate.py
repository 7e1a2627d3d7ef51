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
from glm_jax.finetune.vocabulary import check_vocabulary, find_tokenizer
from glm_jax.io.paths import resolve_path
from glm_jax.language_model.config import LanguageModelConfig, LanguageModelRunConfig
from glm_jax.language_model.lambada import lambada_row, read_lambada
from glm_jax.language_model.perplexity import (
    Document,
    document_losses,
    perplexities,
    read_documents,
    rows_of_documents,
)
from glm_jax.language_model.score import TokenScores, score_rows
from glm_jax.language_model.stored import stored_documents, stored_passages
from glm_jax.language_model.windows import WindowLayout
from glm_jax.model import GLM
from glm_jax.parallel.mesh import check_batch_size, make_mesh
from glm_jax.tasks.sequence import Row
from glm_jax.tokenizer import Tokenizer

_NEEDED_TOKENS = ("MASK", "ENC", "eos", "sop")


@dataclass(frozen=True)
class LanguageModelResult:
    """What an evaluation found.

    Attributes:
      metrics: by name, the published one first.
      losses: of the scored tokens of every document, in nats; empty for LAMBADA.
    """

    metrics: Mapping[str, float]
    losses: Sequence[np.ndarray] = ()


@dataclass(frozen=True)
class _Scorer:
    """A checkpoint, opened, that scores the rows of one configuration.

    Attributes:
      settings: of the evaluation.
      model, params, tokenizer: of the checkpoint.
      mesh: the devices.
    """

    settings: LanguageModelConfig
    model: GLM
    params: PyTree
    tokenizer: Tokenizer
    mesh: Mesh

    def scores(self, rows: Sequence[Row]) -> list[TokenScores]:
        """The scores of all rows."""
        return score_rows(self.model, self.params, rows, self.mesh, self.settings.batch_size)

    @property
    def length(self) -> int:
        """L of the rows."""
        return sequence_length_of(self.settings, self.model.config.max_sequence_length)


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
    check_tokens(tokenizer)
    # Before weights are loaded, which takes long.
    is_lambada = settings.name == "lambada"
    passages = _read_passages(settings) if is_lambada else []
    documents = [] if is_lambada else _read_documents(settings, tokenizer)
    heads = settings.num_attention_heads or None
    model, params = load_glm(checkpoint, num_attention_heads=heads, mesh=mesh, ignore_extra=True)
    check_vocabulary(tokenizer, model.config.vocab_size, str(checkpoint))
    scorer = _Scorer(settings, model, params, tokenizer, mesh)
    with jax.set_mesh(mesh):
        return _last_words(scorer, passages) if is_lambada else _perplexities(scorer, documents)


def _read_passages(settings: LanguageModelConfig) -> list[str]:
    if settings.is_stored:
        return stored_passages(settings.data, settings.split)
    return read_lambada(resolve_path(settings.data, "language_model.data"))


def _read_documents(settings: LanguageModelConfig, tokenizer: Tokenizer) -> list[Document]:
    if settings.is_stored:
        return stored_documents(settings.data, settings.name, settings.split, tokenizer)
    file = resolve_path(settings.data, "language_model.data")
    return read_documents(file, settings.name, tokenizer)


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


def check_tokens(tokenizer: Tokenizer) -> None:
    """Makes sure that rows can be built.

    Raises:
      UsageError: a token of theirs is missing.
    """
    for name in _NEEDED_TOKENS:
        if name not in tokenizer.special:
            raise UsageError(f"the tokenizer has no token {name}, which rows are made with")


def _last_words(scorer: _Scorer, passages: Sequence[str]) -> LanguageModelResult:
    unidirectional = scorer.settings.unidirectional
    rows = [
        lambada_row(passage, scorer.tokenizer, scorer.length, unidirectional=unidirectional)
        for passage in passages
    ]
    scores = scorer.scores(rows)
    right = [bool(row.right.all()) for row in scores]
    losses = [-float(row.log_probs.sum()) for row in scores]
    return LanguageModelResult(
        {
            "accuracy": 100 * float(np.mean(right)),
            "word_perplexity": float(np.exp(np.mean(losses))),
            "num_passages": float(len(rows)),
        }
    )


def _perplexities(scorer: _Scorer, documents: Sequence[Document]) -> LanguageModelResult:
    settings, length = scorer.settings, scorer.length
    stride = settings.stride or max(length // 4, 1)
    layout = WindowLayout(scorer.tokenizer.special, length, stride, settings.unidirectional)
    rows, numbers = rows_of_documents(documents, layout)
    losses = document_losses(scorer.scores(rows), numbers, len(documents))
    return LanguageModelResult(perplexities(documents, losses), losses)
