"""What a head classifies a sequence by."""

from __future__ import annotations

import jax.numpy as jnp
import pytest

from glm_jax.finetune.heads import pooled_positions


@pytest.mark.parametrize(
    ("pool", "expected"), [("cls", [0, 0]), ("pad", [1, 3]), ("start", [2, 3])]
)
def test_pools_where_the_input_fills_the_row_and_where_it_does_not(pool, expected):
    assert pooled_positions(jnp.asarray([2, 4]), 4, pool).tolist() == expected
