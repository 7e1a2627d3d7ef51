"""How many examples each of several streams has had, as `mixture` assigns them.

Plain Python without TensorFlow, which takes seconds to import: a run that resumes counts before it
reads.
"""

from collections.abc import Sequence

UNIT = 1 << 30  # shares are integer multiples of 1 / UNIT; products with it fit into int64


def num_assigned(count: int, weights: Sequence[float]) -> list[int]:
    """How many of the first `count` examples `assign_streams` gives to each stream."""
    numbers, left = [], count
    for number, weight in enumerate(weights[:-1]):
        taken = left * round(weight / sum(weights[number:]) * UNIT) // UNIT
        numbers.append(taken)
        left -= taken
    return [*numbers, left]
