"""Longer position tables, by each of the named ways."""

from __future__ import annotations

import numpy as np
import pytest

from glm_jax.convert.positions import NEW_POSITIONS, extend_positions
from glm_jax.errors import UsageError

TABLE = np.arange(10, dtype=np.float16).reshape(5, 2)


def test_repeating_starts_again_at_the_first_row():
    longer = extend_positions(TABLE, 8, "repeat")
    np.testing.assert_array_equal(longer[:5], TABLE)
    np.testing.assert_array_equal(longer[5:], TABLE[:3])
    np.testing.assert_array_equal(extend_positions(TABLE, 12, "repeat")[5:10], TABLE)


def test_new_rows_are_random_by_default():
    longer = extend_positions(TABLE, 2005, name="a")
    np.testing.assert_array_equal(longer[:5], TABLE)
    added = longer[5:].astype(np.float64)
    assert added.std() == pytest.approx(0.02, rel=0.05) and abs(added.mean()) < 0.002
    np.testing.assert_array_equal(longer, extend_positions(TABLE, 2005, "random", name="a"))
    others = (
        extend_positions(TABLE, 2005, name="b"),
        extend_positions(TABLE, 2005, name="a", seed=1),
    )
    assert not any(np.array_equal(longer, other) for other in others)


@pytest.mark.parametrize("new_positions", NEW_POSITIONS)
def test_every_way_keeps_dtype_and_rows(new_positions):
    assert extend_positions(TABLE, 9, new_positions).dtype == TABLE.dtype
    np.testing.assert_array_equal(extend_positions(TABLE, 5, new_positions), TABLE)
    with pytest.raises(UsageError, match="can't be made shorter"):
        extend_positions(TABLE, 4, new_positions)


def test_an_unknown_way_is_refused():
    with pytest.raises(UsageError, match="expected random or repeat"):
        extend_positions(TABLE, 9, "interpolate")
