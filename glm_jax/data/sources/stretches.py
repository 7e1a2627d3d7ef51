"""Long documents divided between splits by stretches of text, for corpora of few documents.

Where a stretch ends, and which split it belongs to, depends on nothing but the text of its document
up to there: text that is appended to a document, or documents that are added to the corpus, move
nothing that was there before. Stretches don't overlap.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby

TRAIN, VALIDATION, TEST = range(3)

# A stretch ends at the first border after this many characters: of a paragraph, or after a while of
# a line, later of a sentence, then of a word, and at twice the length anywhere.
STRETCH_CHARACTERS = 2048
_BORDERS = (
    re.compile(r"\n[ \t\r]*\n"),
    re.compile(r"\n"),
    re.compile(r"[.?!…][\"'”’)\]]*\s|[。？！…][」』”’）]*(?=[^」』”’）])"),
    re.compile(r"\s"),
)

# Stretches at the start of a document that are not divided: shorter documents stay in one split.
HEAD_STRETCHES = 2


@dataclass(frozen=True)
class Shares:
    """Parts of a long document that go to "validation" and "test"; the rest is "train"."""

    validation: float
    test: float = 0.0

    def split_of(self, index: int) -> int | None:
        """The split of a document's stretch `index`; None leaves it to the document's digest.

        Every split has its first stretch as soon as there are enough, and its share in the end.
        Those of "validation" don't depend on whether there is a "test".
        """
        place = index - HEAD_STRETCHES
        if place < 0:
            return None
        if _is_new(place, self.validation):
            return VALIDATION
        # Stretches before this one that are not in "validation"; the first of them is for "train".
        others = place - int((place - 1) * self.validation) - 1 if place else 0
        test = self.test / (1 - self.validation)
        return TEST if others and _is_new(others - 1, test) else TRAIN


def _is_new(count: int, share: float) -> bool:
    """Whether item `count` is one of those evenly spaced ones that are a share of all."""
    return share > 0 and (count == 0 or int(count * share) > int((count - 1) * share))


def runs(stretches: Iterable[str], shares: Shares) -> Iterator[tuple[int | None, Iterable[str]]]:
    """The stretches of a document in runs of one split each, with the split.

    A run must be read before the next one.
    """
    numbered = enumerate(stretches)
    for split, run in groupby(numbered, key=lambda item: shares.split_of(item[0])):
        yield split, (text for _, text in run)


def split_stretches(blocks: Iterable[str]) -> Iterator[str]:
    """The stretches of a text that arrives in blocks; joined, they are the text.

    Whitespace at the start of the text is left out.
    """
    waiting, is_started = "", False
    for block in blocks:
        waiting += block
        if not is_started:
            waiting = waiting.lstrip()
            is_started = waiting != ""
        start = 0
        while len(waiting) - start > 2 * STRETCH_CHARACTERS:
            end = _stretch_end(waiting, start)
            yield waiting[start:end]
            start = end
        waiting = waiting[start:]
    while waiting:
        end = _stretch_end(waiting, 0)
        yield waiting[:end]
        waiting = waiting[end:]


def _stretch_end(text: str, start: int) -> int:
    """Where a stretch ends; the end of the text if nothing in it ends the stretch."""
    quarter = STRETCH_CHARACTERS // 4
    low = start + STRETCH_CHARACTERS
    for border in _BORDERS:
        if match := border.search(text, low, low + quarter):
            return match.end()
        low += quarter
    return min(low, len(text))
