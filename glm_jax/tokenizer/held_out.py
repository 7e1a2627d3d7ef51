"""Lines kept out of a tokenizer's training, to measure it on."""

from __future__ import annotations

import random
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from glm_jax.tokenizer.protocol import Tokenizer

_ONE_IN = 100  # lines


@dataclass(frozen=True)
class Compression:
    """How a tokenizer does on lines of text; ``num_bytes`` counts UTF-8."""

    num_lines: int
    num_bytes: int
    num_tokens: int

    @property
    def bytes_per_token(self) -> float:
        return self.num_bytes / self.num_tokens


class HeldOutLines:
    """Takes one line in a hundred out of texts, and remembers a sample of them.

    Which lines are taken depends on nothing but their text: a line that occurs in many texts is
    taken from all of them or from none.
    """

    def __init__(self, max_lines: int = 10_000) -> None:
        """``max_lines`` lines are remembered, drawn evenly from those that are taken out."""
        self._sample = Sample(max_lines)

    def taken_from(self, texts: Iterable[str]) -> Iterator[str]:
        """The texts without the lines that are taken out."""
        for text in texts:
            kept = []
            for line in text.split("\n"):
                if line.strip() and zlib.crc32(line.encode(errors="replace")) % _ONE_IN == 0:
                    self._sample.add(line)
                else:
                    kept.append(line)
            yield "\n".join(kept)

    def measure(self, tokenizer: Tokenizer) -> Compression | None:
        """How ``tokenizer`` does on the lines taken out; None where there were none."""
        lines = self._sample.items
        if not lines:
            return None
        num_bytes = sum(len(line.encode(errors="replace")) for line in lines)
        num_tokens = sum(len(tokenizer.encode_text(line)) for line in lines)
        return Compression(len(lines), num_bytes, num_tokens)


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
        """Takes the text, perhaps replacing another, or drops it."""
        self._seen += 1
        if len(self.items) < self._size:
            self.items.append(text)
        elif (index := int(self._generator.random() * self._seen)) < self._size:
            self.items[index] = text
