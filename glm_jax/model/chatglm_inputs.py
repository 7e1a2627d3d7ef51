"""Positions and prefix lengths of ChatGLM's ids, as its published code makes them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Int

from glm_jax.errors import UsageError


@dataclasses.dataclass(frozen=True)
class SpecialIds:
    """The ids that positions depend on."""

    start: int  # sop
    mask: int
    generation_mask: int  # [gMASK]

    @staticmethod
    def of(special: Mapping[str, int]) -> SpecialIds:
        """Those of a tokenizer."""
        return SpecialIds(special["sop"], special["MASK"], special["gMASK"])


def context_length(ids: Sequence[int], special: SpecialIds) -> int:
    """The ids before the first sop, which see each other.

    Raises:
      UsageError: there is no sop.
    """
    if special.start not in ids:
        raise UsageError(f"a sequence of {len(ids)} ids has no sop ({special.start})")
    return list(ids).index(special.start)


def mask_position(ids: Sequence[int], special: SpecialIds) -> int:
    """The index of the mask that is filled: the first [gMASK], or without one the first [MASK].

    Raises:
      UsageError: there is neither.
    """
    mask = special.generation_mask if special.generation_mask in ids else special.mask
    if mask not in ids:
        raise UsageError(
            f"a sequence of {len(ids)} ids has no [gMASK] ({special.generation_mask}) and no "
            f"[MASK] ({special.mask})"
        )
    return list(ids).index(mask)


def positions_of(
    ids: Sequence[int], special: SpecialIds, *, two_dimensional: bool = True
) -> Int[np.ndarray, "2 L"]:
    """The position of every id, and that inside the blank.

    Args:
      ids: with a mask and sop.
      special: the ids of these.
      two_dimensional: False for positions of which the second row means nothing: then those of a
        [gMASK] count on to the end.

    Raises:
      UsageError: there is no mask or no sop.
    """
    length, context = len(ids), context_length(ids, special)
    mask = mask_position(ids, special)
    positions, inside = np.arange(length), np.zeros(length, np.int64)
    inside[context:] = np.arange(length - context) + 1
    if two_dimensional or special.generation_mask not in ids:
        positions[context:] = mask
    return np.stack([positions, inside]).astype(np.int32)
