"""The parts of a transformer block: LayerNorm, linear maps, MLP."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float

from glm_jax.model.dropout import Dropout
from glm_jax.model.remat import MLP_UP, QUERY_KEY_VALUE
from glm_jax.parallel.collectives import (
    local_size,
    reduce_from_tensor_parallel,
)
from glm_jax.parallel.layout import ROW_PARALLEL_AXES

INITIAL_STANDARD_DEVIATION = 0.02


def layer_norm(epsilon: float, dtype: str, name: str | None = None) -> nn.LayerNorm:
    """LayerNorm over the hidden axis with float32 statistics.

    The variance is E[x^2] - E[x]^2, from one pass over the input that disappears in the product
    before it, where the mean of squared differences needs a second pass. Its relative error is
    float32's times 1 + (mean / deviation)^2, and means are smaller than deviations here.
    """
    return nn.LayerNorm(
        epsilon=epsilon,
        dtype=jnp.dtype(dtype),
        use_fast_variance=True,
        scale_init=nn.with_logical_partitioning(nn.initializers.ones, ("hidden",)),
        bias_init=nn.with_logical_partitioning(nn.initializers.zeros, ("hidden",)),
        name=name,
    )


class Linear(nn.Module):
    """Linear map of the last axis with a bias.

    Where tensor parallelism divides the columns of the kernel (column-parallel), the result is this
    device's columns. Where it divides the rows (row-parallel), `inputs` are this device's rows, and
    the products are summed over devices before the bias is added.

    Attributes:
      features: last axes of the result, over all tensor-parallel devices.
      axes: the logical names of the kernel's axes.
      standard_deviation: of the initial kernel.
      dtype: of inputs, products and result.
    """

    features: tuple[int, ...]
    axes: tuple[str, ...]
    standard_deviation: float
    dtype: str

    @nn.compact
    def __call__(
        self, inputs: Float[Array, "... I"], dropout: Dropout | None = None
    ) -> Float[Array, "... O"]:
        """The map of `inputs`; `dropout` is for kinds of maps that drop something themselves."""
        outputs = self.product(inputs, dropout)
        if self.is_row_parallel:
            outputs = reduce_from_tensor_parallel(outputs)
        return outputs + self.bias_parameter()

    def product(
        self, inputs: Float[Array, "... I"], dropout: Dropout | None
    ) -> Float[Array, "... O"]:
        """The map before the bias, of this device's rows and columns."""
        kernel = self.kernel_parameter(self.axes, (inputs.shape[-1], *self.local_features))
        contracted = (((inputs.ndim - 1,), (0,)), ((), ()))
        return jax.lax.dot_general(inputs.astype(kernel.dtype), kernel, contracted)

    @property
    def is_row_parallel(self) -> bool:
        """Whether tensor parallelism divides the rows of the kernel."""
        return self.axes[0] in ROW_PARALLEL_AXES

    @property
    def local_features(self) -> tuple[int, ...]:
        """Last axes of the result on this device."""
        return tuple(map(local_size, self.axes[1:], self.features))

    def kernel_parameter(
        self, axes: tuple[str, ...], shape: tuple[int, ...]
    ) -> Float[Array, "..."]:
        """The kernel, with these axes in this order, in the compute dtype."""
        normal = nn.with_logical_partitioning(nn.initializers.normal(self.standard_deviation), axes)
        return self.param("kernel", normal, shape).astype(jnp.dtype(self.dtype))

    def bias_parameter(self) -> Float[Array, "..."]:
        """The bias in the compute dtype."""
        zeros = nn.with_logical_partitioning(nn.initializers.zeros, self.axes[1:])
        return self.param("bias", zeros, self.local_features).astype(jnp.dtype(self.dtype))


LinearKind = Callable[..., Linear]
"""`Linear` or a class derived from it, with settings of its own bound to it."""


def residual_standard_deviation(num_layers: int) -> float:
    """Initial deviation of the two matrices of a block that write into the residual stream."""
    return INITIAL_STANDARD_DEVIATION / math.sqrt(2.0 * num_layers)


def split_heads(
    projected: Float[Array, "B L P D"], head_size: int
) -> list[Float[Array, "B L H K"]]:
    """Each of the P projections, split into heads."""
    batch, length, num_parts, _ = projected.shape
    # Saved separately, they are not sliced from the projection again in the backward pass; saved
    # before they are split into heads, a minor axis of 64 is not padded to 128.
    saved = [checkpoint_name(projected[:, :, i], QUERY_KEY_VALUE) for i in range(num_parts)]
    return [array.reshape(batch, length, -1, head_size) for array in saved]


class MLP(nn.Module):
    """Two linear maps around a tanh-approximated GELU.

    Attributes:
      inner_size: width between the two, F.
      output_deviation: initial standard deviation of the second matrix.
      dtype: of activations and products.
      linear: the kind of linear maps.
    """

    inner_size: int
    output_deviation: float
    dtype: str
    linear: LinearKind = Linear

    @nn.compact
    def __call__(
        self, hidden: Float[Array, "B L D"], dropout: Dropout | None = None
    ) -> Float[Array, "B L D"]:
        width = hidden.shape[-1]
        inner = self.linear(
            (self.inner_size,),
            ("hidden_in", "mlp_out"),
            INITIAL_STANDARD_DEVIATION,
            self.dtype,
            name="up",
        )(hidden, dropout)  # [B, L, D] -> [B, L, F]
        inner = checkpoint_name(inner, MLP_UP)
        # Only its input is kept for the backward pass: the steps of the tanh form are as large as
        # `inner` each, and cost less to compute again than to store and read.
        inner = jax.checkpoint(partial(nn.gelu, approximate=True), prevent_cse=False)(inner)
        return self.linear(
            (width,),
            ("mlp_in", "hidden"),
            self.output_deviation,
            self.dtype,
            name="down",
        )(inner, dropout)  # [B, L, F] -> [B, L, D]
