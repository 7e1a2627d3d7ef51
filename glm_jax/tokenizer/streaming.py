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


# So many tokens before a place decide how it reads; more only take time.
CONTEXT = 16


def text_in_place(tokenizer: Tokenizer, before: Sequence[int], ids: Sequence[int]) -> str:
    """What tokens add to the text of those before them."""
    context = list(before[-CONTEXT:])
    whole = tokenizer.decode([*context, *ids])
    return whole[shared_length(tokenizer.decode(context), whole) :]


def texts_in_place(tokenizer: Tokenizer, before: Sequence[int], ids: Sequence[int]) -> list[str]:
    """What each of some tokens adds; a character of several tokens comes with the last of them."""
    context = list(before[-CONTEXT:])
    whole = tokenizer.decode([*context, *ids])
    ends = [
        shared_length(tokenizer.decode([*context, *ids[:count]]), whole)
        for count in range(len(ids))
    ]
    ends.append(len(whole))
    for place in range(1, len(ends)):
        ends[place] = max(ends[place - 1], ends[place])
    return [whole[begin:end] for begin, end in itertools.pairwise(ends)]


def without_incomplete(text: str) -> str:
    """A text that still grows, without the beginning of a character at its end."""
    return text.rstrip(INCOMPLETE)
