"""What a model reads before it writes: ids with one blank, or several."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from glm_jax.errors import UsageError
from glm_jax.tokenizer import Tokenizer


@dataclass(frozen=True)
class Source:
    """Part A.

    Attributes:
      ids: from the first token to the last one before padding.
      blanks: indices of the masks that are filled, in order.
    """

    ids: tuple[int, ...]
    blanks: tuple[int, ...]


@dataclass(frozen=True)
class SourceEncoder:
    """Texts -> sources of a length.

    Attributes:
      tokenizer: of the model.
      length: S, the number of ids of a source at most.
    """

    tokenizer: Tokenizer
    length: int

    @property
    def start(self) -> int:
        """The token before the text."""
        return self.tokenizer.special["ENC"]

    @property
    def mask(self) -> int:
        """The mask of short blanks, which every model has."""
        return self.tokenizer.special["MASK"]

    @property
    def sentence_mask(self) -> int:
        """The mask of sentences, where the model has one."""
        return self.tokenizer.special.get("sMASK", self.mask)

    def encode(self, text: str) -> list[int]:
        """Ids of a text."""
        return self.tokenizer.encode(text)

    def source(self, ids: Sequence[int], mask: int) -> Source:
        """The first S ids, whose first `mask` is filled.

        Raises:
          UsageError: what has to be kept leaves no space for the mask.
        """
        kept = tuple(ids[: self.length])
        if mask not in kept:
            raise UsageError(f"a source length of {self.length} leaves no space for the blank")
        return Source(kept, (kept.index(mask),))
