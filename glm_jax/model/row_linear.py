"""Linear maps of few rows, as decoding has them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from glm_jax.model.dropout import Dropout
from glm_jax.model.layers import Linear

# Fewer rows than this are a product with vectors rather than one of matrices.
FEW_ROWS = 32
# Rows that fill a tile of a TPU's registers.
_TPU_ROWS = 8


def few_rows_product(
    rows: Float[Array, "R I"], kernel: Float[Array, "... I"]
) -> Float[Array, "R ..."]:
    """Every row times every vector of a kernel, read in the order of its storage, in float32."""

    def on_tpu(rows: Float[Array, "R I"], kernel: Float[Array, "... I"]) -> Float[Array, "R ..."]:
        return for_matrix_units(_vectors_product, rows, kernel)

    return jax.lax.platform_dependent(rows, kernel, tpu=on_tpu, default=_vectors_product)


def for_matrix_units(
    product: Callable[[Float[Array, "R I"], Any], Float[Array, "R ..."]],
    rows: Float[Array, "R I"],
    kernel: Any,
) -> Float[Array, "R ..."]:
    """A product with the rows repeated to at least 8, which a TPU's matrix units compute.

    The TPU compiler makes vector operations of the product of one row, and estimates 3.8 times the
    time of reading the kernel for them.
    """
    number = len(rows)
    if number >= _TPU_ROWS:
        return product(rows, kernel)
    # Behind the barrier the compiler does not see which rows are zero.
    chosen = jax.lax.optimization_barrier(jnp.eye(_TPU_ROWS, number, dtype=bool))
    padded = jnp.sum(jnp.where(chosen[..., None], rows, 0), axis=1)
    products = product(padded, kernel)
    own = chosen.reshape(*chosen.shape, *(1,) * (products.ndim - 1))
    return jnp.sum(jnp.where(own, products[:, None], 0), axis=0)


def _vectors_product(
    rows: Float[Array, "R I"], kernel: Float[Array, "... I"]
) -> Float[Array, "R ..."]:
    """`few_rows_product` on all platforms.

    On a CPU, products with 2 to 16 rows take 20% to 50% less time than in the other orientation.
    """
    # Without the barriers the compiler would transpose the product again.
    columns = jax.lax.optimization_barrier(rows.T)
    contracted = (((kernel.ndim - 1,), (0,)), ((), ()))
    product = jax.lax.dot_general(kernel, columns, contracted, preferred_element_type=jnp.float32)
    return jnp.moveaxis(jax.lax.optimization_barrier(product), -1, 0)


class RowLinear(Linear):
    """`Linear` for few rows; its kernel is stored as [*features, in_features]."""

    @nn.compact
    def __call__(
        self, inputs: Float[Array, "... I"], dropout: Dropout | None = None
    ) -> Float[Array, "... O"]:
        in_features = inputs.shape[-1]
        kernel = self.kernel_parameter(
            (*self.axes[1:], self.axes[0]), (*self.features, in_features)
        )
        dtype = kernel.dtype
        rows = inputs.astype(dtype).reshape(-1, in_features)
        if len(rows) < FEW_ROWS:
            outputs = few_rows_product(rows, kernel).astype(dtype)
        else:
            outputs = jax.lax.dot_general(rows, kernel, (((1,), (kernel.ndim - 1,)), ((), ())))
        return outputs.reshape(*inputs.shape[:-1], *self.features) + self.bias_parameter()
