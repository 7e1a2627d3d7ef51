"""What a pattern is made of: texts, the mask, and slots for continuous prompts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum


class Mark(Enum):
    """Parts of a pattern that are not text."""

    MASK = "mask"
    SLOT = "slot"  # filled with continuous prompts, or with nothing


@dataclass(frozen=True)
class Shortenable:
    """A text that may lose tokens from its end where the sequence is too short."""

    text: str


MASK, SLOT = Mark.MASK, Mark.SLOT

# Each part is tokenized separately: no token spans two of them.
Part = str | Shortenable | Mark


@dataclass(frozen=True)
class Pattern:
    """A cloze question: two lists of parts, and the answer where one is scored by its tokens.

    Attributes:
      first: parts up to the border between the lists.
      second: parts after it. Truncation shortens the list with more tokens to lose.
      answer: text whose tokens are scored; None where verbalizers are compared at the mask.
    """

    first: Sequence[Part]
    second: Sequence[Part] = ()
    answer: str | None = None
