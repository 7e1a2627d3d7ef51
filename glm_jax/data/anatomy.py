"""The parts of an example, found again from its arrays, and its tokens in readable form."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

import numpy as np
from jaxtyping import Int


class TokenNames(Protocol):
    """The part of a tokenizer that names tokens."""

    @property
    def special(self) -> Mapping[str, int]: ...

    def piece(self, id: int) -> str: ...


@dataclass(frozen=True)
class Block:
    """One blank of Part B: its places in the sequence, and the place of its mask."""

    start: int
    stop: int
    mask: int


def used_length(example: Mapping[str, np.ndarray]) -> int:
    """Tokens before the padding, which alone has position 0 after the first token.

    Args:
      example: one row of a batch (contract C1), without the batch axis.
    """
    placed = np.flatnonzero(example["position_ids"].sum(axis=0))
    return int(placed.max(initial=0)) + 1


def find_blocks(example: Mapping[str, np.ndarray]) -> list[Block]:
    """The blocks of Part B in order: each begins at block position 1.

    Args:
      example: one row of a batch (contract C1), without the batch axis.
    """
    position, block_position = example["position_ids"][:, : used_length(example)]
    starts = np.flatnonzero(block_position == 1)
    borders = [*map(int, starts), len(position)]
    return [Block(start, stop, int(position[start])) for start, stop in pairwise(borders)]


def readable_pieces(tokens: Int[np.ndarray, "L"], tokenizer: TokenNames) -> list[str]:
    """Tokens on one line each, whatever they hold; sop and eop by their short names."""
    names = {tokenizer.special[name]: name for name in ("sop", "eop")}
    return [names.get(token) or _printable(tokenizer.piece(token)) for token in map(int, tokens)]


def _printable(piece: str) -> str:
    piece = piece.replace("\n", "↵")
    return "".join(c if c.isprintable() else "·" for c in piece) or "·"
