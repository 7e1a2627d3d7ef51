"""BERT's WordPiece vocabulary, by the `tokenizers` library."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from glm_jax.errors import UsageError
from glm_jax.io.encodings import decode_text, text_lines
from glm_jax.tokenizer.text_model import FastEncodingModel

VOCABULARY_FILE = "vocab.txt"
CONTINUATION = "##"
_UNKNOWN = "[UNK]"
# Longer words are one unknown token (source: BERT's own code).
_MAX_WORD_CHARACTERS = 100


class WordPieceModel(FastEncodingModel):
    """Words and their continuations; text is split at spaces, punctuation and Chinese characters.

    Decoding puts one space between words, as the original does: spacing and case are not kept.
    """

    def __init__(self, vocabulary: bytes, *, lowercase: bool) -> None:
        """``vocabulary`` is the content of a vocab.txt, one piece a line.

        Raises:
          UsageError: it is no text, or has no piece for unknown words.
        """
        lines = text_lines(decode_text(vocabulary, "the tokenizer's vocab.txt"))
        self.piece_ids: Mapping[str, int] = {line: id for id, line in enumerate(lines)}
        if _UNKNOWN not in self.piece_ids:
            raise UsageError(f"the tokenizer's vocab.txt has no line {_UNKNOWN}")
        self.files: Mapping[str, bytes] = {VOCABULARY_FILE: vocabulary}
        self.size = len(lines)
        self.lowercase = lowercase
        self._pieces = lines
        self._tokenizer = Tokenizer(
            models.WordPiece(
                dict(self.piece_ids),
                unk_token=_UNKNOWN,
                max_input_chars_per_word=_MAX_WORD_CHARACTERS,
            )
        )
        self._tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lowercase)  # pyright: ignore[reportAttributeAccessIssue]
        self._tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()  # pyright: ignore[reportAttributeAccessIssue]

    def decode(self, ids: Sequence[int], special: Mapping[int, str]) -> str:
        pieces = [special.get(id) or (self._pieces[id] if id < self.size else "") for id in ids]
        return " ".join(filter(None, pieces)).replace(f" {CONTINUATION}", "").strip()

    def piece(self, id: int) -> str:
        return self._pieces[id]

    def text(self, id: int) -> str:
        return self._pieces[id].removeprefix(CONTINUATION)
