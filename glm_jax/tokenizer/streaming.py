"""Text that grows token by token."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from glm_jax.tokenizer import Tokenizer

# What a decoder puts for the bytes of a character that is not complete.
INCOMPLETE = "\N{REPLACEMENT CHARACTER}"


class GrowingText:
    """Turns tokens into text as they come.

    One token may be a part of a character, and how a token reads may depend on the one before; so
    what comes out is always the end of the complete text, held back while its last character is
    incomplete.
    """

    def __init__(self, tokenizer: Tokenizer):
        self._tokenizer = tokenizer
        self._ids: list[int] = []
        self._emitted = ""

    def add(self, *ids: int) -> str:
        """Takes more tokens and gives the text that they complete."""
        self._ids += ids
        text = self._tokenizer.decode(self._ids)
        if text.endswith(INCOMPLETE):
            return ""
        return self._advance(text)

    def end(self) -> str:
        """What was held back."""
        return self._advance(self._tokenizer.decode(self._ids))

    def _advance(self, text: str) -> str:
        new, self._emitted = text[len(self._emitted) :], text
        return new


def shared_length(first: str, second: str) -> int:
    """Length of the common prefix of two texts."""
    pairs = zip(first, second, strict=False)
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))


# Number of preceding tokens that decide how a token reads; more only take time.
CONTEXT = 16


def text_in_place(tokenizer: Tokenizer, before: Sequence[int], ids: Sequence[int]) -> str:
    """What tokens add to the text of those before them."""
    context = list(before[-CONTEXT:])
    text = tokenizer.decode([*context, *ids])
    return text[shared_length(tokenizer.decode(context), text) :]


def texts_in_place(tokenizer: Tokenizer, before: Sequence[int], ids: Sequence[int]) -> list[str]:
    """What each of some tokens adds; a character of several tokens comes with the last of them."""
    context = list(before[-CONTEXT:])
    text = tokenizer.decode([*context, *ids])
    ends = [
        shared_length(tokenizer.decode([*context, *ids[:count]]), text) for count in range(len(ids))
    ]
    ends.append(len(text))
    for index in range(1, len(ends)):
        ends[index] = max(ends[index - 1], ends[index])
    return [text[start:end] for start, end in itertools.pairwise(ends)]


def without_incomplete(text: str) -> str:
    """A text that still grows, without an incomplete character at its end."""
    return text.rstrip(INCOMPLETE)
