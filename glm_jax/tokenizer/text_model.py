"""What a vocabulary does with plain text, before GLM's special tokens come in."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from typing import Protocol, runtime_checkable

from tokenizers import Tokenizer


@runtime_checkable
class TextModel(Protocol):
    """Pieces of text; their ids are 0 to ``size - 1``.

    Attributes:
      size: number of pieces.
      piece_ids: ids by piece, where special tokens may be among the pieces.
      files: what the model was made of, by the names under which it is saved.
    """

    size: int
    piece_ids: Mapping[str, int]
    files: Mapping[str, bytes]

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of every text, taken literally, on all cores."""
        ...

    def encode(self, text: str) -> list[int]:
        """Ids of one text, taken literally."""
        ...

    def decode(self, ids: Sequence[int], special: Mapping[int, str]) -> str:
        """The text of ids, of which those in ``special`` have the text given there."""
        ...

    def piece(self, id: int) -> str:
        """A readable form of one piece."""
        ...

    def text(self, id: int) -> str:
        """What one piece adds to a text, as far as its bytes are text of their own."""
        ...


def decode_runs(
    ids: Sequence[int],
    special: Mapping[int, str],
    size: int,
    decode: Callable[[list[int]], str],
) -> str:
    """Decodes each run of pieces as one; ids that name nothing are left out."""
    texts: list[str] = []
    for is_piece, run in groupby(ids, key=lambda id: id < size and id not in special):
        members = list(run)
        texts += [decode(members)] if is_piece else [special.get(id, "") for id in members]
    return "".join(texts)


def without_surrogates(text: str) -> str:
    """``text`` with "?" for lone surrogates, which are no text and have no bytes."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode(errors="replace").decode()
    return text


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
