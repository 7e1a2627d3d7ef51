"""A vocabulary of text with GLM's special tokens around it."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from os import PathLike

import numpy as np
from jaxtyping import Bool

from glm_jax.errors import UsageError
from glm_jax.io.files import write_files
from glm_jax.io.paths import resolve_path
from glm_jax.tokenizer.protocol import SENTENCE_END_CHARACTERS, padded_size
from glm_jax.tokenizer.special import SpecialTokens
from glm_jax.tokenizer.text_model import TextModel

DESCRIPTION_FILE = "glm_tokenizer.json"


class GLMTokenizer:
    """Encodes text, which may contain special tokens, and decodes it.

    Mask tokens take the whitespace to their left with them, as in the original.
    """

    def __init__(
        self, pieces: TextModel, table: SpecialTokens, description: Mapping[str, object]
    ) -> None:
        """``description`` says how to make the tokenizer again from ``pieces.files``."""
        self._pieces = pieces
        self._table = table
        self._description = dict(description)
        self._special = dict(table.ids)
        self._vocab_size = table.vocab_size
        self._text_to_id = table.text_to_id()
        self._id_to_text = table.id_to_text()
        self._mask_texts = table.mask_texts()
        self._special_pattern = re.compile("|".join(map(re.escape, self._text_to_id)))
        self._fingerprint = fingerprint_of(pieces.files, self._special)
        self._sentence_end: np.ndarray | None = None

    @property
    def special(self) -> Mapping[str, int]:
        return self._special

    @property
    def text_model(self) -> TextModel:
        """What encodes the text between special tokens."""
        return self._pieces

    @property
    def table(self) -> SpecialTokens:
        """The special tokens and their texts."""
        return self._table

    @property
    def vocab_size(self) -> int:
        """Pieces of text plus special tokens, counted as the original counts them.

        For kind "chinese" without its fix the id of the last special token may equal this number.
        """
        return self._vocab_size

    @property
    def padded_vocab_size(self) -> int:
        return padded_size(self._vocab_size)

    @property
    def fingerprint(self) -> str:
        return self._fingerprint

    @property
    def sentence_end(self) -> Bool[np.ndarray, "V"]:
        if self._sentence_end is None:
            ends = np.zeros(self.padded_vocab_size, dtype=bool)
            for id in range(self._pieces.size):
                ends[id] = not SENTENCE_END_CHARACTERS.isdisjoint(self._pieces.text(id))
            ends[list(self._id_to_text)] = False
            ends.setflags(write=False)
            self._sentence_end = ends
        return self._sentence_end

    def encode(self, text: str) -> list[int]:
        """Ids of ``text``; whitespace to the left of a mask token is dropped."""
        ids: list[int] = []
        for part in self._parts(text):
            ids += [part] if isinstance(part, int) else self.encode_text(part)
        return ids

    def encode_text(self, text: str) -> list[int]:
        """Ids of ``text`` taken literally; a lone surrogate, which is no text, counts as "?"."""
        return self._pieces.encode(text)

    def encode_batch(self, texts: Iterable[str]) -> list[list[int]]:
        """``encode`` of every text, on all cores."""
        parts = [list(self._parts(text)) for text in texts]
        plain = [part for of_text in parts for part in of_text if isinstance(part, str)]
        encoded = iter(self._pieces.encode_batch(plain))
        return [
            [id for part in of_text for id in ([part] if isinstance(part, int) else next(encoded))]
            for of_text in parts
        ]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ``ids``; ids that name nothing (holes and padding of the table) are left out.

        Raises:
          UsageError: an id is negative or beyond the padded vocabulary.
        """
        return self._pieces.decode([self._checked(id) for id in ids], self._id_to_text)

    def piece(self, id: int) -> str:
        """The token as its vocabulary writes it, or its special text."""
        id = self._checked(id)
        if id in self._id_to_text:
            return self._id_to_text[id]
        return self._pieces.piece(id) if id < self._pieces.size else f"<unused {id}>"

    def saved_files(self) -> dict[str, bytes]:
        """The vocabulary's files and, last, the description that makes it a tokenizer."""
        description = {
            **self._description,
            "files": list(self._pieces.files),
            "vocab_size": self.vocab_size,
            "special": self._special,
            "fingerprint": self.fingerprint,
        }
        content = json.dumps(description, indent=2).encode()
        return {**self._pieces.files, DESCRIPTION_FILE: content}

    def save(self, folder: str | PathLike[str]) -> None:
        """Writes `saved_files`."""
        folder = resolve_path(folder, "the tokenizer's folder")
        folder.mkdir(parents=True, exist_ok=True)
        write_files(folder, self.saved_files())

    def _parts(self, text: str) -> Iterator[str | int]:
        """Stretches of plain text and, between them, ids of special tokens."""
        position = 0
        for match in self._special_pattern.finditer(text):
            before = text[position : match.start()]
            before = before.rstrip() if match[0] in self._mask_texts else before
            if before:
                yield before
            yield self._text_to_id[match[0]]
            position = match.end()
        # Text of nothing but whitespace encodes to nothing (source: the original code).
        rest = text[position:]
        if rest and (position or not rest.isspace()):
            yield rest

    def _checked(self, id: int) -> int:
        if not 0 <= id < self.padded_vocab_size:
            raise UsageError(
                f"token id {id} is outside the padded vocabulary of {self.padded_vocab_size}"
            )
        return int(id)


def fingerprint_of(files: Mapping[str, bytes], special: Mapping[str, int]) -> str:
    """SHA-256 over a vocabulary's files and its special ids."""
    digest = hashlib.sha256()
    for content in files.values():
        digest.update(hashlib.sha256(content).digest())
    digest.update(json.dumps(special, sort_keys=True).encode())
    return digest.hexdigest()
