"""Scores of documents -> perplexities by token, word and byte."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from etils import epath

from glm_jax.errors import UsageError
from glm_jax.language_model.detokenize import ptb, unchanged, wikitext
from glm_jax.language_model.score import TokenScores
from glm_jax.language_model.windows import WindowLayout, document_rows
from glm_jax.seq2seq.files import existing
from glm_jax.tasks.files import read_text
from glm_jax.tasks.sequence import Row
from glm_jax.tokenizer import Tokenizer


@dataclass(frozen=True)
class Document:
    """A text that is scored from its second token on.

    Attributes:
      ids: its tokens.
      num_words: pieces of the text as published, stripped, between single spaces.
      num_bytes: of the text as the model reads it, in UTF-8.
    """

    ids: Sequence[int]
    num_words: int
    num_bytes: int


def read_documents(file: epath.Path, task: str, tokenizer: Tokenizer) -> list[Document]:
    """The documents of a file: all of it for WikiText and PTB, one per line for other texts.

    Args:
      file: text in UTF-8.
      task: "wikitext", "ptb" or "language_model".
      tokenizer: of the model.

    Raises:
      UsageError: the file is missing, or no document has two tokens.
    """
    text = read_text(existing(file))
    detokenize = {"wikitext": wikitext, "ptb": ptb}.get(task, unchanged)
    if task == "language_model":
        return encode_documents(text.split("\n"), tokenizer, str(file))
    return _scorable([_document(text, detokenize(text), tokenizer)], str(file))


def encode_documents(texts: Iterable[str], tokenizer: Tokenizer, source: str) -> list[Document]:
    """Texts as documents, without the spaces around them.

    Args:
      texts: of which those without two tokens are left out.
      tokenizer: of the model.
      source: where they are from, for messages.

    Raises:
      UsageError: no text has two tokens.
    """
    return _scorable([_document(text, text.strip(), tokenizer) for text in texts], source)


def _document(raw: str, text: str, tokenizer: Tokenizer) -> Document:
    ids = tokenizer.encode(text) if text.strip() else []
    return Document(ids, len(raw.strip().split(" ")), len(text.encode()))


def _scorable(documents: Iterable[Document], source: str) -> list[Document]:
    # A document of one token has nothing to score; the original fails on it.
    found = [document for document in documents if len(document.ids) > 1]
    if not found:
        raise UsageError(f"{source} has no text of two tokens or more")
    return found


def rows_of_documents(
    documents: Iterable[Document], layout: WindowLayout
) -> tuple[list[Row], list[int]]:
    """The windows of all documents, and the number of each window's document."""
    rows, numbers = [], []
    for number, document in enumerate(documents):
        for row in document_rows(document.ids, layout):
            rows.append(row)
            numbers.append(number)
    return rows, numbers


def document_losses(
    scores: Sequence[TokenScores], numbers: Sequence[int], num_documents: int
) -> list[np.ndarray]:
    """The loss of every scored token of each document in nats, from its second token on."""
    parts: list[list[np.ndarray]] = [[] for _ in range(num_documents)]
    for row, number in zip(scores, numbers, strict=True):
        parts[number].append(-row.log_probs.astype(np.float64))
    return [np.concatenate(windows) for windows in parts]


def perplexities(
    documents: Sequence[Document], losses: Sequence[np.ndarray]
) -> Mapping[str, float]:
    """Perplexities over all documents.

    `word_perplexity` is what is published for WikiText-103: the loss is divided by the words of the
    text as it was tokenized by the benchmark, without the first one of each document, as its first
    token is not scored either. The original divides by all tokens but one of all documents
    together, which differs where there are several (reference-finetune.md, section 14, fault 20).

    Returns:
      token_perplexity, word_perplexity, byte_perplexity, loss (nats per scored token), and
      num_tokens that were scored.
    """
    total = float(sum(values.sum() for values in losses))
    num_tokens = sum(len(values) for values in losses)
    num_words = sum(document.num_words - 1 for document in documents)
    num_bytes = sum(document.num_bytes for document in documents)
    found = {
        "word_perplexity": _perplexity(total, num_words),
        "token_perplexity": _perplexity(total, num_tokens),
        "byte_perplexity": _perplexity(total, num_bytes),
        "loss": total / num_tokens,
        "num_tokens": float(num_tokens),
    }
    return {name: value for name, value in found.items() if math.isfinite(value)}


def _perplexity(total: float, count: int) -> float:
    """exp(total / count); infinite where it is too large for a number."""
    if count == 0 or total / count > math.log(np.finfo(np.float64).max):
        return math.inf
    return math.exp(total / count)
