"""Products of few rows, in the ways of all platforms."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array, Float

from glm_jax.model.row_linear import few_rows_product, for_matrix_units


def plain(rows: Float[Array, "R I"], kernel: Float[Array, "O I"]) -> Float[Array, "R O"]:
    """Adds in float32, as the products of few rows do."""
    return jnp.einsum("ri,oi->ro", rows, kernel, preferred_element_type=jnp.float32)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("number", [1, 3, 8, 9])
def test_rows_filled_up_for_matrix_units_change_nothing(number, dtype):
    draw = np.random.default_rng(number)
    rows = jnp.asarray(draw.normal(size=(number, 16)), dtype)
    kernel = jnp.asarray(draw.normal(size=(24, 16)), dtype)
    shapes = []

    def product(rows, kernel):
        shapes.append(rows.shape)
        return plain(rows, kernel)

    expected = plain(rows, kernel)
    found = jax.jit(lambda *inputs: for_matrix_units(product, *inputs))(rows, kernel)
    assert found.shape == (number, 24) and shapes == [(max(number, 8), 16)]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(few_rows_product(rows, kernel), expected, rtol=1e-5, atol=1e-5)


def test_infinite_rows_stay_where_they_are():
    rows = jnp.asarray([[1.0, jnp.inf], [2.0, 3.0]])
    found = for_matrix_units(plain, rows, jnp.eye(2) + 1)
    assert np.all(np.isinf(found[0])) and np.array_equal(found[1], [7.0, 8.0])
