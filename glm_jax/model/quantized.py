"""Linear maps whose matrices are stored as integers, with one scale per column of the result.

A column of the kernel is scale * integers, as in ChatGLM-6B's int8 and int4 releases: scale is the
largest absolute value / 127 or / 7. A byte holds two int4 numbers: row 2 j of the kernel in its
high and row 2 j + 1 in its low four bits.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int8

from glm_jax.model.dropout import Dropout
from glm_jax.model.layers import Linear, LinearKind
from glm_jax.model.quantized_product import num_lanes, row_products, unpack_int4
from glm_jax.model.row_linear import RowLinear


class QuantizedLinear(Linear):
    """`Linear` with an int8 kernel [I, *features]; a column of the result is scaled at the end."""

    def product(
        self, inputs: Float[Array, "... I"], dropout: Dropout | None
    ) -> Float[Array, "... O"]:
        """The map before the bias, of this device's rows and columns."""
        dtype = jnp.dtype(self.dtype)
        kernels = self.integers(inputs.shape[-1])
        parts = inputs.astype(dtype).reshape(*inputs.shape[:-1], -1, len(kernels))
        contracted = (((inputs.ndim - 1,), (0,)), ((), ()))
        products = [
            jax.lax.dot_general(parts[..., part], kernel.astype(dtype), contracted)
            for part, kernel in enumerate(kernels)
        ]
        return functools.reduce(operator.add, products) * self.scales()

    def integers(self, in_features: int) -> Sequence[Int8[Array, "J ..."]]:
        """The kernel without its scales: each n-th row, for every n of a byte's numbers."""
        return (self.integer_parameter(self.axes, (in_features, *self.local_features)),)

    def integer_parameter(
        self, axes: tuple[str, ...], shape: tuple[int, ...]
    ) -> Int8[Array, "..."]:
        """The stored kernel, with these axes in this order."""
        zeros = nn.with_logical_partitioning(nn.initializers.zeros, axes)
        kernel: Any = self.param("kernel", zeros, shape, jnp.int8)
        return kernel

    def scales(self) -> Float[Array, "..."]:
        """The scales in the compute dtype."""
        ones = nn.with_logical_partitioning(nn.initializers.ones, self.axes[1:])
        scales: Any = self.param("kernel_scale", ones, self.local_features)
        return scales.astype(jnp.dtype(self.dtype))


class Int4Linear(QuantizedLinear):
    """`QuantizedLinear` with two rows of the kernel in one byte."""

    def integers(self, in_features: int) -> Sequence[Int8[Array, "J ..."]]:
        """As `QuantizedLinear.integers`: even and odd rows, which need not be interleaved."""
        shape = (in_features // 2, *self.local_features)
        return unpack_int4(self.integer_parameter(self.axes, shape))


class QuantizedRowLinear(QuantizedLinear):
    """`RowLinear` with an int8 kernel as `column_blocks` makes it."""

    @nn.compact
    def __call__(
        self, inputs: Float[Array, "... I"], dropout: Dropout | None = None
    ) -> Float[Array, "... O"]:
        in_features, (*leading, columns) = inputs.shape[-1], self.features
        rows = inputs.astype(jnp.dtype(self.dtype)).reshape(-1, in_features)
        lanes = num_lanes(columns)
        axes = (*self.axes[1:], self.axes[0], "lanes")
        shape = (*leading, columns // lanes, self.stored_size(in_features), lanes)
        products = row_products(rows, self.integer_parameter(axes, shape))
        outputs = products * self.scales() + self.bias_parameter()
        return outputs.reshape(*inputs.shape[:-1], *self.features)

    def stored_size(self, in_features: int) -> int:
        """Bytes of a column of the kernel."""
        return in_features


class Int4RowLinear(QuantizedRowLinear):
    """`QuantizedRowLinear` with two rows of the kernel in one byte."""

    def stored_size(self, in_features: int) -> int:
        """As `QuantizedRowLinear.stored_size`."""
        return in_features // 2


_KINDS: dict[tuple[LinearKind, str], type[QuantizedLinear]] = {
    (Linear, "int8"): QuantizedLinear,
    (Linear, "int4"): Int4Linear,
    (RowLinear, "int8"): QuantizedRowLinear,
    (RowLinear, "int4"): Int4RowLinear,
}


def quantized(linear: LinearKind, quantization: str) -> LinearKind:
    """The kind of linear maps that does the same on quantized kernels.

    Args:
      linear: `Linear` or `RowLinear`.
      quantization: one of `QUANTIZATIONS`.
    """
    return linear if quantization == "none" else _KINDS[linear, quantization]
