"""Pieces of a SentencePiece model."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

import sentencepiece

from glm_jax.errors import UsageError
from glm_jax.tokenizer.text_model import decode_runs, without_surrogates

MODEL_FILE = "pieces.model"


class SentencePieceModel:
    """A SentencePiece model; whitespace is treated as its file says.

    A model made by ``train_sentencepiece`` keeps every character, so that decoding gives the text
    back, with one exception: U+2581, SentencePiece's mark for a space, comes back as a space.
    """

    def __init__(self, model: bytes) -> None:
        """``model`` is the content of a SentencePiece model file.

        Raises:
          UsageError: ``model`` is not a SentencePiece model.
        """
        try:
            self._processor = sentencepiece.SentencePieceProcessor(model_proto=model)
        except RuntimeError as error:
            raise UsageError("the tokenizer's file is not a SentencePiece model") from error
        self.files: Mapping[str, bytes] = {MODEL_FILE: model}
        self.size: int = self._processor.vocab_size()
        self.piece_ids: Mapping[str, int] = {}

    def encode(self, text: str) -> list[int]:
        return self._processor.encode(without_surrogates(text))

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        checked = [without_surrogates(text) for text in texts]
        return self._processor.encode(checked, num_threads=os.cpu_count() or 1)

    def decode(self, ids: Sequence[int], special: Mapping[int, str]) -> str:
        return decode_runs(ids, special, self.size, self._processor.decode)

    def piece(self, id: int) -> str:
        """The piece as SentencePiece writes it: a leading space is U+2581."""
        return self._processor.id_to_piece(id)

    def text(self, id: int) -> str:
        piece = self._processor.id_to_piece(id)
        # A piece for a byte is written <0x0A>.
        return chr(int(piece[3:5], base=16)) if self._processor.is_byte(id) else piece
