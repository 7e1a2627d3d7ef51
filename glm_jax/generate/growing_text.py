"""Text that grows token by token."""

from __future__ import annotations

import itertools

from glm_jax.tokenizer import Tokenizer

# What a decoder puts for the bytes of a character that is not complete.
INCOMPLETE = "\N{REPLACEMENT CHARACTER}"


class GrowingText:
    """Turns tokens into text as they come.

    One token may be a part of a character, and how a token reads may depend on the one before; so
    what comes out is always the end of the whole text, held back while its last character is
    incomplete.
    """

    def __init__(self, tokenizer: Tokenizer):
        self._tokenizer = tokenizer
        self._ids: list[int] = []
        self._told = ""

    def add(self, *ids: int) -> str:
        """Takes more tokens and gives the text that they complete."""
        self._ids += ids
        text = self._tokenizer.decode(self._ids)
        if text.endswith(INCOMPLETE):
            return ""
        return self._tell(text)

    def end(self) -> str:
        """What was held back."""
        return self._tell(self._tokenizer.decode(self._ids))

    def _tell(self, text: str) -> str:
        new, self._told = text[len(self._told) :], text
        return new


def shared_length(first: str, second: str) -> int:
    """How many characters two texts begin with together."""
    pairs = zip(first, second, strict=False)
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))
