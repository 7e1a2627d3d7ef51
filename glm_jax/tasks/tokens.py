"""Patterns -> token ids, each part tokenized separately, truncated to fit."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from glm_jax.errors import UsageError
from glm_jax.tasks.example import Label
from glm_jax.tasks.patterns import MASK, SLOT, Part, Pattern, Shortenable

# Marks a continuous prompt in lists of ids, where no token's id is negative.
PROMPT = -1


@dataclass
class Piece:
    """Ids of one part."""

    ids: list[int]
    shortenable: bool = False


@dataclass(frozen=True)
class Prompts:
    """How many continuous prompts there are.

    Attributes:
      in_slots: shared by the slots of a pattern, left to right.
      prefix: in front of the pattern.
    """

    in_slots: int = 0
    prefix: int = 0

    @property
    def total(self) -> int:
        """All of them."""
        return self.in_slots + self.prefix


def tokenize(
    pattern: Pattern, encode: Callable[[str], list[int]], mask_id: int, prompts: Prompts
) -> tuple[list[Piece], list[Piece]]:
    """The ids of each part of both lists, prompts as `PROMPT`.

    Args:
      pattern: the question.
      encode: text -> a list of ids of its own, since truncation changes it.
      mask_id: of the blank.
      prompts: continuous prompts of the slots and before the pattern.

    Raises:
      UsageError: there are prompts for slots and the pattern has no slot.
    """
    lists = (pattern.first, pattern.second)
    num_slots = sum(part is SLOT for parts in lists for part in parts)
    if prompts.in_slots and not num_slots:
        raise UsageError("continuous prompts need a pattern with slots, and this one has none")
    per_slot = -(-prompts.in_slots // num_slots) if num_slots else 0
    left = prompts.in_slots

    def piece(part: Part) -> Piece:
        nonlocal left
        if part is SLOT:
            taken = min(per_slot, left)
            left -= taken
            return Piece([PROMPT] * taken)
        if part is MASK:
            return Piece([mask_id])
        if isinstance(part, Shortenable):
            return Piece(encode(part.text), shortenable=True)
        return Piece(encode(part) if isinstance(part, str) else [])

    first, second = ([piece(part) for part in parts] for parts in lists)
    return [Piece([PROMPT] * prompts.prefix), *first], second


def truncate(first: Sequence[Piece], second: Sequence[Piece], reserved: int, length: int) -> None:
    """Drops ids from the ends of shortenable pieces until all fit, in place.

    The list with more shortenable ids loses one at a time, the second one where they have equally
    many (source: reference-finetune.md, section 4).

    Args:
      first: pieces before the border.
      second: pieces after it.
      reserved: other tokens of the row.
      length: of the row.

    Raises:
      UsageError: too long even without the shortenable pieces; the message has the length needed.
    """
    excess = sum(len(piece.ids) for piece in (*first, *second)) + reserved - length
    counts = [_shortenable(first), _shortenable(second)]
    if excess > sum(counts):
        raise UsageError(
            f"the parts that can't be shortened need a sequence length of "
            f"{length + excess - sum(counts)}, more than {length}"
        )
    for _ in range(excess):
        longer = 0 if counts[0] > counts[1] else 1
        counts[longer] -= 1
        for piece in reversed((first, second)[longer]):
            if piece.shortenable and piece.ids:
                piece.ids.pop()
                break


def _shortenable(pieces: Sequence[Piece]) -> int:
    return sum(len(piece.ids) for piece in pieces if piece.shortenable)


def joined(pieces: Sequence[Piece]) -> list[int]:
    """The ids of all pieces."""
    return [id for piece in pieces for id in piece.ids]


def single_tokens(
    words: Mapping[Label, str], labels: Sequence[Label], encode: Callable[[str], Sequence[int]]
) -> list[int]:
    """The id of each label's verbalizer.

    Raises:
      UsageError: a verbalizer is not exactly one token.
    """
    ids = []
    for label in labels:
        encoded = encode(words[label])
        if len(encoded) != 1:
            raise UsageError(
                f"the verbalizer {words[label]!r} of label {label!r} is "
                f"{len(encoded)} tokens where one is needed; score answers instead (multi_token)"
            )
        ids.append(encoded[0])
    return ids
