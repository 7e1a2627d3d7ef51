"""The parts of an example, found again from its arrays, and its tokens in readable form."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int


@runtime_checkable
class TokenNames(Protocol):
    """The part of a tokenizer that names tokens."""

    @property
    def special(self) -> Mapping[str, int]: ...

    def piece(self, id: int) -> str: ...


@dataclass(frozen=True)
class Block:
    """One blank of Part B: its indices in the sequence, and the index of its mask."""

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


def find_blocks(example: Mapping[str, np.ndarray], special: Mapping[str, int]) -> list[Block]:
    """The blocks of Part B in order: each starts with sop, or with a sentinel's own sop.

    Args:
      example: one row of a batch (contract C1), without the batch axis.
      special: ids of the special tokens.
    """
    block_position = example["position_ids"][1]
    masks = {id: f"MASK{name[3:]}" for name, id in special.items() if _is_numbered(name, "sop")}
    in_part_b = np.flatnonzero(block_position > 0)
    starts = [index for index in map(int, in_part_b) if int(example["tokens"][index]) in masks]
    borders = [*starts, used_length(example)]
    return [
        Block(
            start, stop, _find_mask(example, start, masks[int(example["tokens"][start])], special)
        )
        for start, stop in pairwise(borders)
    ]


def _find_mask(
    example: Mapping[str, np.ndarray], start: int, name: str, special: Mapping[str, int]
) -> int:
    """The index of a block's mask: at the block's position or, with sentinels, by the mask's name.

    Args:
      start: where the block starts.
      name: the mask that goes with its sop; of the unnumbered ones each goes with each objective.
    """
    prefix = int(example["prefix_length"])
    position = example["position_ids"][0]
    at_position = np.flatnonzero(position[:prefix] == position[start])
    if len(at_position):
        return int(at_position[0])
    names = ("MASK", "sMASK", "gMASK") if name == "MASK" else (name,)
    ids = [special[name] for name in names if name in special]
    return int(np.flatnonzero(np.isin(example["tokens"][:prefix], ids))[0])


def _is_numbered(name: str, stem: str) -> bool:
    number = name.removeprefix(stem)
    return name.startswith(stem) and (not number or number.isdecimal())


def readable_pieces(tokens: Int[np.ndarray, "L"], tokenizer: TokenNames) -> list[str]:
    """Tokens on one line each, whatever they hold; sop and eop by their short names."""
    names = {tokenizer.special[name]: name for name in ("sop", "eop")}
    return [names.get(token) or _printable(tokenizer.piece(token)) for token in map(int, tokens)]


def _printable(piece: str) -> str:
    piece = piece.replace("\n", "↵")
    return "".join(c if c.isprintable() else "·" for c in piece) or "·"
