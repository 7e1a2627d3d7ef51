"""Which split a document belongs to, by a hash of its text alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int, UInt64

from glm_jax.errors import UsageError


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

    def of(self, digests: UInt64[np.ndarray, "N"]) -> Int[np.ndarray, "N"]:
        """For every document, by its digest, the place of its split in ``names``."""
        place = digests / 2.0**64  # uniform in [0, 1)
        in_test = (place >= self.validation) & (place < self.validation + self.test)
        return np.where(place < self.validation, 1, np.where(in_test, 2, 0))
