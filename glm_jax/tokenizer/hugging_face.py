"""Any vocabulary that a Hugging Face `tokenizer.json` describes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tokenizers import Tokenizer

from glm_jax.errors import UsageError
from glm_jax.io.encodings import decode_text
from glm_jax.tokenizer.text_model import FastEncodingModel, decode_runs

FILE = "huggingface.json"


class HuggingFaceModel(FastEncodingModel):
    """The pieces of a tokenizer.json, its own special tokens among them as pieces never encoded."""

    def __init__(self, description: bytes) -> None:
        """``description`` is the content of a tokenizer.json.

        Raises:
          UsageError: it is not that.
        """
        written = decode_text(description, "the tokenizer's tokenizer.json")
        try:
            self._tokenizer = Tokenizer.from_str(written)
        except Exception as error:  # the library raises bare exceptions
            reason = " ".join(str(error).split())
            raise UsageError(f"the tokenizer's tokenizer.json can't be read: {reason}") from error
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        # "<s>" in a text is three characters; only GLM's own special texts are tokens.
        self._tokenizer.encode_special_tokens = True
        self.files: Mapping[str, bytes] = {FILE: description}
        self.piece_ids: Mapping[str, int] = self._tokenizer.get_vocab(with_added_tokens=True)
        self.size = max(self.piece_ids.values(), default=-1) + 1

    def decode(self, ids: Sequence[int], special: Mapping[int, str]) -> str:
        return decode_runs(ids, special, self.size, self._decode)

    def piece(self, id: int) -> str:
        return self._tokenizer.id_to_token(id) or f"<unused {id}>"

    def text(self, id: int) -> str:
        return self._decode([id])

    def _decode(self, ids: list[int]) -> str:
        return self._tokenizer.decode(ids, skip_special_tokens=False)
