"""Encoding with the `tokenizers` library, which three kinds of vocabulary share."""

from __future__ import annotations

from collections.abc import Sequence

from tokenizers import Tokenizer

from glm_jax.tokenizer.text_model import without_surrogates


class FastEncodingModel:
    """Encodes with `self._tokenizer`; a list of texts on all cores."""

    _tokenizer: Tokenizer

    def encode(self, text: str) -> list[int]:
        """Ids of one text, taken literally."""
        return self._tokenizer.encode(without_surrogates(text), add_special_tokens=False).ids

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of every text, taken literally."""
        checked = [without_surrogates(text) for text in texts]
        encodings = self._tokenizer.encode_batch_fast(checked, add_special_tokens=False)
        return [encoding.ids for encoding in encodings]
