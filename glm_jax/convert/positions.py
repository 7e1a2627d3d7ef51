"""Position tables for longer sequences than a model was trained with."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping

import numpy as np
from jaxtyping import Float

from glm_jax.errors import UsageError

# The original's initial standard deviation of embeddings.
INITIAL_STANDARD_DEVIATION = 0.02
DEFAULT_NEW_POSITIONS = "random"


def _random_rows(
    table: Float[np.ndarray, "P D"], count: int, seed: list[int]
) -> Float[np.ndarray, "R D"]:
    draw = np.random.default_rng(seed)
    rows = draw.normal(0.0, INITIAL_STANDARD_DEVIATION, (count, table.shape[1]))
    return rows.astype(table.dtype)


def _repeated_rows(
    table: Float[np.ndarray, "P D"], count: int, _seed: list[int]
) -> Float[np.ndarray, "R D"]:
    return table[np.arange(count) % len(table)]


# How the rows after the last trained one are made.
NEW_POSITIONS: Mapping[str, Callable[[np.ndarray, int, list[int]], np.ndarray]] = {
    "random": _random_rows,
    "repeat": _repeated_rows,
}


def extend_positions(
    table: Float[np.ndarray, "P D"],
    rows: int,
    new_positions: str = DEFAULT_NEW_POSITIONS,
    *,
    name: str = "",
    seed: int = 0,
) -> Float[np.ndarray, "rows D"]:
    """A position table with more rows; the first P are those of `table`.

    Args:
      table: the trained rows.
      rows: how many there shall be.
      new_positions: what the rows after the first P are: "random", drawn from a normal distribution
        with standard deviation 0.02, as a new model has them and as the original's load_pretrained
        leaves them; or "repeat", the table's rows again from its first.
      name: the table's, so that two tables of one model get different random rows.
      seed: of the random rows. The same seed and name give the same rows.

    Raises:
      UsageError: the table has more than `rows` already, or `new_positions` is unknown.
    """
    if rows < len(table):
        raise UsageError(
            f"the position tables have {len(table)} rows and can't be made shorter, to {rows}"
        )
    if new_positions not in NEW_POSITIONS:
        raise UsageError(
            f"new positions are {new_positions!r}; expected {' or '.join(NEW_POSITIONS)}"
        )
    make_rows = NEW_POSITIONS[new_positions]
    added = make_rows(table, rows - len(table), [seed, zlib.crc32(name.encode())])
    return np.concatenate([table, added])
