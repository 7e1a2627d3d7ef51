"""From tokenized shards to the arrays of a store, each shard of an array by itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Int64

from glm_jax.data.prepare.duplicates import first_occurrences
from glm_jax.data.prepare.report import LENGTH_EDGES
from glm_jax.data.prepare.splits import EmptySplitError, SplitFractions
from glm_jax.data.prepare.tokenize import read_documents, read_ids
from glm_jax.data.sources.document import ReadStats
from glm_jax.data.sources.stretches import HEAD_STRETCHES, STRETCH_CHARACTERS
from glm_jax.data.store import arrays
from glm_jax.errors import UsageError


@dataclass(frozen=True)
class PlacedShard:
    """What one shard adds to one split, and where.

    ``kept`` are the bits of the shard's documents that are kept (of all splits), or None where all
    are.
    """

    name: str
    kept: bytes | None
    first_document: int
    num_documents: int
    first_token: int
    num_tokens: int


@dataclass(frozen=True)
class ArrayPart:
    """The elements ``start`` to ``end`` of one array, and the shards that have them."""

    split: str
    array: str
    start: int
    end: int
    shards: tuple[PlacedShard, ...]


@dataclass
class Plan:
    """Where everything goes, and the sums of it."""

    placed: dict[str, list[PlacedShard]]
    length_counts: Int64[np.ndarray, "E"]
    stats: ReadStats = field(default_factory=ReadStats)
    text_bytes: int = 0
    duplicates: int = 0

    @property
    def splits(self) -> dict[str, dict[str, int]]:
        """Tokens and documents of every split."""
        return {
            name: {
                "num_tokens": sum(shard.num_tokens for shard in placed),
                "num_documents": sum(shard.num_documents for shard in placed),
            }
            for name, placed in self.placed.items()
        }

    def parts(self) -> Iterator[ArrayPart]:
        """All parts of all arrays, each one shard of its array."""
        for split, counts in self.splits.items():
            placed = self.placed[split]
            for array, first, number in (
                ("tokens", "first_token", "num_tokens"),
                ("document_starts", "first_document", "num_documents"),
            ):
                ends = np.array([getattr(s, first) + getattr(s, number) for s in placed])
                for start in range(0, counts[number], arrays.SHARD_ELEMENTS):
                    end = min(start + arrays.SHARD_ELEMENTS, counts[number])
                    low = int(np.searchsorted(ends, start, "right"))
                    high = int(np.searchsorted(ends, end, "left")) + 1
                    yield ArrayPart(split, array, start, end, tuple(placed[low:high]))


def plan_arrays(
    folder: str,
    names: Sequence[str],
    fractions: SplitFractions,
    scratch: Path | None,
) -> Plan:
    """Where the documents of all shards go.

    Args:
      folder: of the shards, a path or URL.
      names: of the shards, in order.
      scratch: an empty folder where duplicates are found, or None to keep them.
    """
    first = None if scratch is None else _first_occurrences(folder, names, scratch)
    plan = Plan({name: [] for name in fractions.names}, np.zeros(len(LENGTH_EDGES), np.int64))
    documents = dict.fromkeys(fractions.names, 0)
    tokens = dict.fromkeys(fractions.names, 0)
    offset = 0
    for name in names:
        shard = read_documents(folder, name)
        number = len(shard.lengths)
        kept = np.ones(number, bool) if first is None else first[offset : offset + number]
        offset += number
        plan.stats.add(shard.stats)
        plan.text_bytes += int(shard.num_bytes[kept].sum())
        plan.duplicates += number - int(kept.sum())
        edges = np.searchsorted(LENGTH_EDGES, shard.lengths[kept], "right") - 1
        plan.length_counts += np.bincount(edges, minlength=len(LENGTH_EDGES))
        bits = None if kept.all() else np.packbits(kept).tobytes()
        of_split = fractions.of(shard.digests, shard.splits)
        for index, split in enumerate(fractions.names):
            lengths = shard.lengths[kept & (of_split == index)]
            if not len(lengths):
                continue
            placed = PlacedShard(
                name, bits, documents[split], len(lengths), tokens[split], int(lengths.sum())
            )
            plan.placed[split].append(placed)
            documents[split] += placed.num_documents
            tokens[split] += placed.num_tokens
    return plan


def check_splits(plan: Plan, fractions: SplitFractions, *, is_divided: bool) -> None:
    """Makes sure that every split has a document.

    Args:
      is_divided: whether long documents are divided between the splits.

    Raises:
      UsageError: there is no document at all.
      EmptySplitError: a split has none.
    """
    documents = {name: counts["num_documents"] for name, counts in plan.splits.items()}
    total = sum(documents.values())
    if total == 0:
        why = "; ".join(plan.stats.lines())
        raise UsageError(f"the sources hold no document with text{f' ({why})' if why else ''}")
    short = ""
    if is_divided and not plan.stats.divided_documents:
        characters = 2 * HEAD_STRETCHES * STRETCH_CHARACTERS
        short = f", none of them long enough to be divided ({characters:,} characters)"
    for name, number in documents.items():
        if number == 0:
            raise EmptySplitError(
                f"the {name} split would be empty: {total} documents with "
                f"validation_fraction {fractions.validation} and test_fraction {fractions.test}"
                f"{short}; change the fractions or add text"
            )


@dataclass(frozen=True)
class WritingArrays:
    """Writes parts of arrays; cheap to send to a worker.

    Attributes:
      folder: of the shards, a path or URL.
      out: of the store, a path or URL, where the arrays were made.
      vocab_size: bound of the ids.
    """

    folder: str
    out: str
    fractions: SplitFractions
    vocab_size: int

    def __call__(self, part: ArrayPart) -> Int64[np.ndarray, "V"]:
        """Write one part; gives how often each token occurs in it (in starts, never)."""
        values = np.empty(part.end - part.start, np.int64)
        for shard in part.shards:
            if part.array == "tokens":
                first, found = shard.first_token, self._tokens(shard, part.split)
            else:
                first, found = shard.first_document, self._starts(shard, part.split)
            low, high = max(part.start, first), min(part.end, first + len(found))
            values[low - part.start : high - part.start] = found[low - first : high - first]
        arrays.write_part(f"{self.out}/{part.split}/{part.array}", part.start, values)
        if part.array == "tokens":
            return np.bincount(values, minlength=self.vocab_size)
        return np.zeros(self.vocab_size, np.int64)

    def _tokens(self, shard: PlacedShard, split: str) -> np.ndarray:
        chosen, lengths = self._chosen(shard, split)
        return read_ids(self.folder, shard.name)[np.repeat(chosen, lengths)]

    def _starts(self, shard: PlacedShard, split: str) -> np.ndarray:
        chosen, lengths = self._chosen(shard, split)
        return shard.first_token + np.cumsum(lengths[chosen]) - lengths[chosen]

    def _chosen(
        self, shard: PlacedShard, split: str
    ) -> tuple[Bool[np.ndarray, "N"], Int64[np.ndarray, "N"]]:
        """The shard's documents that are kept in a split, and the lengths of all."""
        documents = read_documents(self.folder, shard.name)
        of_split = self.fractions.of(documents.digests, documents.splits)
        chosen = of_split == self.fractions.names.index(split)
        if shard.kept is not None:
            bits = np.frombuffer(shard.kept, np.uint8)
            chosen &= np.unpackbits(bits, count=len(chosen)).astype(bool)
        return chosen, documents.lengths


def _first_occurrences(folder: str, names: Sequence[str], scratch: Path) -> Bool[np.ndarray, "D"]:
    number = sum(len(read_documents(folder, name).lengths) for name in names)
    digests = (read_documents(folder, name).text_digests for name in names)
    return first_occurrences(digests, number, scratch)
