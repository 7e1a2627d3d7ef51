"""One line of the parity report, and how differences are measured."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

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


def largest(differences: Iterable[float]) -> float:
    """The largest of some differences: NaN where one is, infinite where there are none.

    Python's max() returns NaN only where it comes first, and so loses what must not pass.
    """
    values = np.asarray(
        differences if isinstance(differences, np.ndarray) else [*differences], np.float64
    )
    return float(values.max()) if values.size else float("inf")


def guarded(golden: str, rows: Callable[[], Iterable[Row]]) -> Iterator[Row]:
    """The rows of a golden, and one that fails if it has none or they can't be computed.

    A recording that is damaged or incomplete must not end the report, nor be missing from it.
    """
    count = 0
    try:
        for row in rows():
            count += 1
            yield row
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        yield Row(golden, f"stopped by {type(error).__name__}: {reason}", 0.0, float("inf"))
        return
    if not count:
        yield Row(golden, "nothing was recorded", 0.0, float("inf"))


def folders(parent: Path) -> list[Path]:
    """The sub-folders of a folder of recordings; the folder itself where it has none."""
    found = sorted(path for path in parent.iterdir() if path.is_dir()) if parent.is_dir() else []
    return found or [parent]


def absolute(ours: ArrayLike, recorded: ArrayLike) -> float:
    """Largest absolute difference; infinite where the shapes differ or nothing was recorded."""
    ours, recorded = np.asarray(ours, np.float64), np.asarray(recorded, np.float64)
    if ours.shape != recorded.shape:
        return float("inf")
    return largest(np.abs(ours - recorded).ravel())


def relative(ours: ArrayLike, recorded: ArrayLike, smallest: float = 0.0) -> float:
    """Largest difference as a fraction of the recorded value.

    Infinite where the shapes differ or nothing was recorded.

    A recorded value counts as `smallest` where it is nearer to 0, so that a relative tolerance r
    allows r x `smallest` everywhere. With `smallest` 0, a recorded 0 has to be met exactly.
    """
    ours, recorded = np.asarray(ours, np.float64), np.asarray(recorded, np.float64)
    if ours.shape != recorded.shape:
        return float("inf")
    gap, size = np.abs(ours - recorded), np.maximum(np.abs(recorded), smallest)
    fraction = np.divide(gap, size, out=np.where(gap > 0, np.inf, gap), where=size > 0)
    return largest(fraction.ravel())
