"""What every tokenizer can do, whatever its vocabulary."""

from collections.abc import Iterable, Mapping, Sequence
from os import PathLike
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool

# A token ends a sentence when its text contains one of these (source: the original code).
SENTENCE_END_CHARACTERS = frozenset(".?!;:。？！；…\n")

# The word embedding has a multiple of this many rows (source: the original code).
VOCABULARY_MULTIPLE = 128


@runtime_checkable
class Tokenizer(Protocol):
    """Text to ids and back."""

    @property
    def special(self) -> Mapping[str, int]:
        """Ids by name: ENC MASK sop eop eos pad unk sep, and sMASK gMASK dBLOCK where present."""
        ...

    @property
    def vocab_size(self) -> int:
        """Pieces of text plus special tokens, before padding."""
        ...

    @property
    def padded_vocab_size(self) -> int:
        """``vocab_size`` rounded up to a multiple of 128: the rows of the word embedding."""
        ...

    @property
    def fingerprint(self) -> str:
        """SHA-256 over the vocabulary and the special ids; equal only for equal tokenizers."""
        ...

    @property
    def sentence_end(self) -> Bool[np.ndarray, "V"]:
        """True where the token's text contains a sentence end; V is the padded vocabulary size."""
        ...

    def encode(self, text: str) -> list[int]:
        """Ids of ``text``, in which special tokens such as "[MASK]" have their own ids."""
        ...

    def encode_text(self, text: str) -> list[int]:
        """Ids of ``text`` taken literally: "[MASK]" in it is six characters, not a mask."""
        ...

    def encode_batch(self, texts: Iterable[str]) -> list[list[int]]:
        """``encode`` of every text."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ``ids``, special tokens included."""
        ...

    def piece(self, id: int) -> str:
        """A readable form of one token."""
        ...

    def save(self, folder: str | PathLike[str]) -> None:
        """Write what ``load_tokenizer(folder)`` needs."""
        ...


def padded_size(vocab_size: int) -> int:
    """``vocab_size`` rounded up to the multiple that the word embedding has."""
    return -(-vocab_size // VOCABULARY_MULTIPLE) * VOCABULARY_MULTIPLE
