"""An answer that grows token by token, and ends at a stop string."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from glm_jax.tokenizer.streaming import without_incomplete


class AnswerText(Protocol):
    """How tokens are shown."""

    def complete(self, ids: Sequence[int]) -> str:
        """The text of a complete answer."""
        ...

    def settled(self, ids: Sequence[int]) -> str:
        """The part of the text that no further tokens can change."""
        ...


class GrowingAnswer:
    """Takes the tokens of an answer one by one and gives its text as it settles.

    What `add` and `end` give is, in sequence, the text of the answer up to the first stop string.
    It is the same however the tokens arrive.

    Attributes:
      ids: the tokens so far.
      text: what was given so far.
      stopped: whether a stop string was found; no more tokens are needed then.
    """

    def __init__(self, shown: AnswerText, stops: Sequence[str] = ()) -> None:
        self.ids: list[int] = []
        self.text = ""
        self.stopped = False
        self._shown = shown
        self._stops = tuple(stops)

    def add(self, id: int) -> str:
        """Takes the next token and gives the text that it settles."""
        if self.stopped:
            return ""
        self.ids.append(id)
        settled = self._cut(self._shown.settled(self.ids))
        return self._advance(
            settled if self.stopped else settled[: end_before_prefix(settled, self._stops)]
        )

    def end(self) -> str:
        """What is left when no more tokens come."""
        if self.stopped:
            return ""
        return self._advance(self._cut(self._shown.complete(self.ids)))

    def _cut(self, text: str) -> str:
        found = [position for stop in self._stops if (position := text.find(stop)) >= 0]
        self.stopped = bool(found)
        return text[: min(found)] if found else text

    def _advance(self, text: str) -> str:
        if len(text) <= len(self.text):
            return ""
        new, self.text = text[len(self.text) :], text
        return new


def end_before_prefix(text: str, patterns: Sequence[str]) -> int:
    """Where the longest end of a text starts that further text may complete to a pattern."""
    longest = max(map(len, patterns), default=1) - 1
    for start in range(max(0, len(text) - longest), len(text)):
        if any(pattern.startswith(text[start:]) for pattern in patterns):
            return start
    return len(text)


class DecodedText:
    """The text of tokens as they decode, without any change."""

    def __init__(self, decode: Callable[[Sequence[int]], str]) -> None:
        self._decode = decode

    def complete(self, ids: Sequence[int]) -> str:
        return self._decode(ids)

    def settled(self, ids: Sequence[int]) -> str:
        return without_incomplete(self._decode(ids)).rstrip()
