"""Texts of data sets that TFDS has prepared on this machine."""

from __future__ import annotations

from collections.abc import Mapping

from glm_jax.errors import UsageError
from glm_jax.language_model.lambada import passages_of
from glm_jax.language_model.perplexity import Document, encode_documents
from glm_jax.tokenizer import Tokenizer

# The field with the text, by task. WikiText and PTB are one document whose lines have an order,
# which TFDS does not keep.
FIELDS: Mapping[str, str] = {"lambada": "passage", "language_model": "text"}


def stored_passages(source: str, split: str) -> list[str]:
    """The passages of LAMBADA in a prepared data set.

    Args:
      source: "tfds:NAME[/CONFIG]".
      split: as `stored_rows` has them.

    Raises:
      UsageError: as `stored_rows`, or an example has no passage of two words.
    """
    from glm_jax.tasks.tfds import stored_rows  # TensorFlow is heavy, and files don't need it

    return passages_of(stored_rows(source, "lambada", split), FIELDS["lambada"])


def stored_documents(source: str, task: str, split: str, tokenizer: Tokenizer) -> list[Document]:
    """The examples of a prepared data set, each a document.

    Args:
      source: "tfds:NAME[/CONFIG]".
      task: "language_model"; others are refused.
      split: as `stored_rows` has them.
      tokenizer: of the model.

    Raises:
      UsageError: as `stored_rows`, the task is read from files only, an example has no text, or
        none has two tokens.
    """
    if task not in FIELDS:
        raise UsageError(f"task {task} is read from a file, and not from {source}")
    from glm_jax.tasks.tfds import stored_rows

    texts = []
    for row in stored_rows(source, task, split):
        text = row[FIELDS[task]]
        if not isinstance(text, str):
            raise UsageError(f"{row.origin}: the field {FIELDS[task]!r} is {text!r}; expected text")
        texts.append(text)
    return encode_documents(texts, tokenizer, f"{source}, split {split},")
