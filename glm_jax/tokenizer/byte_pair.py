"""The byte-level byte-pair vocabularies of GPT-2 and RoBERTa, by the `tokenizers` library."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from glm_jax.errors import UsageError
from glm_jax.io.encodings import LONE_SURROGATE, decode_text, text_lines
from glm_jax.tokenizer.text_model import FastEncodingModel, decode_runs

VOCABULARY_FILE = "vocab.json"
MERGES_FILE = "merges.txt"


class BytePairModel(FastEncodingModel):
    """Merges of bytes; nothing is unknown and decoding gives the text back."""

    def __init__(self, vocabulary: bytes, merges: bytes) -> None:
        """Takes the contents of a vocab.json (piece to id) and a merges.txt.

        Raises:
          UsageError: one of them is not that, or they don't belong together.
        """
        written = decode_text(vocabulary, "the tokenizer's vocab.json")
        lines = text_lines(decode_text(merges, "the tokenizer's merges.txt"))
        try:
            ids = json.loads(written)
            if any(LONE_SURROGATE.search(piece) for piece in ids):
                raise ValueError("a piece has a lone surrogate, half of a character")
            pairs = [tuple(line.split(" ")) for line in lines if line and line[:9] != "#version:"]
            model = models.BPE(ids, pairs)  # pyright: ignore[reportArgumentType]
        except Exception as error:  # the library raises bare exceptions
            reason = " ".join(str(error).split())
            raise UsageError(
                f"the tokenizer's vocab.json and merges.txt can't be read: {reason}"
            ) from error
        if sorted(ids.values()) != list(range(len(ids))):
            raise UsageError("the tokenizer's vocab.json doesn't number its pieces from 0 on")
        self.piece_ids: Mapping[str, int] = ids
        self.files: Mapping[str, bytes] = {VOCABULARY_FILE: vocabulary, MERGES_FILE: merges}
        self.merges = pairs
        self.size = len(ids)
        self._pieces = sorted(ids, key=ids.__getitem__)
        self._tokenizer = Tokenizer(model)
        self._tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # pyright: ignore[reportAttributeAccessIssue]
        self._tokenizer.decoder = decoders.ByteLevel()  # pyright: ignore[reportAttributeAccessIssue]

    def decode(self, ids: Sequence[int], special: Mapping[int, str]) -> str:
        return decode_runs(ids, special, self.size, self._tokenizer.decode)

    def piece(self, id: int) -> str:
        """The piece as its vocabulary writes it: every byte is a printable character."""
        return self._pieces[id]

    def text(self, id: int) -> str:
        return self._tokenizer.decode([id])
