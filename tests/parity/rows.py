"""One line of the parity report, and how differences are measured."""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import ArrayLike


@dataclasses.dataclass(frozen=True)
class Row:
    """One quantity of one golden beside ours.

    Attributes:
      golden: the folder under the goldens, with the case where it has several.
      quantity: what was compared, and in what measure.
      tolerance: the largest difference allowed; 0 where the values must be equal.
      difference: the largest difference measured.
    """

    golden: str
    quantity: str
    tolerance: float
    difference: float

    @property
    def passed(self) -> bool:
        """Whether the difference is within the tolerance; never for one that is not a number."""
        return self.difference <= self.tolerance


def absolute(ours: ArrayLike, recorded: ArrayLike) -> float:
    """Largest absolute difference; infinite where the shapes differ."""
    ours, recorded = np.asarray(ours, np.float64), np.asarray(recorded, np.float64)
    if ours.shape != recorded.shape:
        return float("inf")
    return float(np.max(np.abs(ours - recorded), initial=0.0))


def relative(ours: ArrayLike, recorded: ArrayLike, smallest: float = 0.0) -> float:
    """Largest difference as a fraction of the recorded value; infinite where the shapes differ.

    A recorded value counts as `smallest` where it is nearer to 0, so that a relative tolerance r
    allows r x `smallest` everywhere. With `smallest` 0, a recorded 0 has to be met exactly.
    """
    ours, recorded = np.asarray(ours, np.float64), np.asarray(recorded, np.float64)
    if ours.shape != recorded.shape:
        return float("inf")
    gap, size = np.abs(ours - recorded), np.maximum(np.abs(recorded), smallest)
    fraction = np.divide(gap, size, out=np.where(gap > 0, np.inf, gap), where=size > 0)
    return float(np.max(fraction, initial=0.0))
