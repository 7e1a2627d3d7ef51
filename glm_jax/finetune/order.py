"""Orders of rows that a few integers decide."""

from __future__ import annotations

import numpy as np
from jaxtyping import Int

# Batches among which rows of like length are grouped: more bring padding nearer to that of the
# buckets alone by less than 2% of the positions.
LENGTH_WINDOW = 16


def random_order(number: int, *key: int) -> Int[np.ndarray, "number"]:
    """A permutation that these integers of 0 or more decide."""
    # Raw numbers: numpy promises that they stay the same, which it doesn't of its permutations.
    numbers = np.random.Philox(np.random.SeedSequence(key)).random_raw(number)
    return np.argsort(numbers, kind="stable")


def window_batches(
    rows: Int[np.ndarray, "W"], lengths: Int[np.ndarray, "W"], batch_size: int, *key: int
) -> list[Int[np.ndarray, "b"]]:
    """Rows -> batches of rows of like length, the batches in an order of their own.

    Args:
      rows: shuffled.
      lengths: of them.
      batch_size: rows of a batch; one batch may have fewer.
      key: decides the order.
    """
    rows = rows[np.argsort(lengths, kind="stable")]
    batches = [rows[first : first + batch_size] for first in range(0, len(rows), batch_size)]
    return [batches[number] for number in random_order(len(batches), *key)]
