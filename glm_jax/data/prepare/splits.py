"""Which split every document, or every stretch of a long one, belongs to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int, Int8, UInt64

from glm_jax.data.sources.stretches import TEST, TRAIN, VALIDATION, Shares
from glm_jax.errors import UsageError

# Where a document's digest decides.
BY_DIGEST = -1

# How splits are made: of complete documents; of stretches of long ones; or the second only where
# the first leaves a split without a document.
DOCUMENTS, STRETCHES, AUTO = SPLIT_BY = ("documents", "stretches", "auto")


class EmptySplitError(UsageError):
    """A split that would have no document."""


def check_split_by(split_by: str) -> None:
    """Makes sure that there is such a way to make splits.

    Raises:
      UsageError: there is none.
    """
    if split_by not in SPLIT_BY:
        raise UsageError(f"split_by is {split_by!r}, expected one of {', '.join(SPLIT_BY)}")


@dataclass(frozen=True)
class SplitFractions:
    """Expected fractions of the documents in "validation" and "test"; the rest is "train".

    A document keeps its split when others come or go. Whether there is a test split, and how large
    it is, doesn't change which documents are in "validation".
    """

    validation: float
    test: float = 0.0

    def __post_init__(self) -> None:
        if not 0 < self.validation < 1:
            raise UsageError(
                f"validation_fraction is {self.validation}, expected 0 < validation_fraction < 1"
            )
        if not 0 <= self.test < 1 - self.validation:
            raise UsageError(
                f"test_fraction is {self.test}, expected at least 0 and, with a "
                f"validation_fraction of {self.validation}, less than {1 - self.validation:g}"
            )

    @property
    def names(self) -> Sequence[str]:
        """The splits that there are."""
        return ("train", "validation", "test") if self.test else ("train", "validation")

    @property
    def shares(self) -> Shares:
        """The same as shares of every long document."""
        return Shares(self.validation, self.test)

    def of(
        self, digests: UInt64[np.ndarray, "N"], splits: Int8[np.ndarray, "N"]
    ) -> Int[np.ndarray, "N"]:
        """The index in ``names`` of the split of every document.

        Args:
          digests: decide where ``splits`` doesn't.
          splits: of stretches of long documents; BY_DIGEST elsewhere.
        """
        point = digests / 2.0**64  # uniform in [0, 1)
        in_test = (point >= self.validation) & (point < self.validation + self.test)
        by_digest = np.where(point < self.validation, VALIDATION, np.where(in_test, TEST, TRAIN))
        return np.where(splits == BY_DIGEST, by_digest, splits)
