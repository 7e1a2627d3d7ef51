"""A uniform sample of a stream of unknown length."""

from __future__ import annotations

import random

_SEED = 0


class Sample:
    """At most ``size`` of the texts added, each as likely as the others (reservoir sampling).

    The same texts in the same order give the same sample.
    """

    def __init__(self, size: int) -> None:
        self.items: list[str] = []
        self._size = size
        self._seen = 0
        self._generator = random.Random(_SEED)

    def add(self, text: str) -> None:
        """Takes the text, perhaps in place of another, or lets it go."""
        self._seen += 1
        if len(self.items) < self._size:
            self.items.append(text)
        elif (place := int(self._generator.random() * self._seen)) < self._size:
            self.items[place] = text
