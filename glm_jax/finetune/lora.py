"""Low-rank adapters (LoRA: Hu et al., 2022) for the linear maps of the network's blocks.

The map x W + b becomes x W + s (d(x) A) B + b with A [in, r], B [r, out], s = alpha / r and dropout
d. It is computed as a branch, not by a kernel W + s A B: the branch has dropout on its input, and
its backward pass has no product of the kernel's size. Nothing but A and B is differentiated.

A and B lie in the tree of parameters next to the kernel that they adapt, as `lora_a` and `lora_b`,
stacked over layers, sharded and gathered as it is. `qwix`, a library for this, would replace
`jax.lax.dot_general` while the model runs: under `jax.shard_map` it would neither sum the gradients
of adapters over tensor-parallel devices nor drop the same inputs in every layout.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from glm_jax.convert.base_weights import ADAPTER_MATRICES
from glm_jax.finetune.heads import uniform
from glm_jax.finetune.lora_config import TARGETS, LoraConfig
from glm_jax.model.dropout import Dropout
from glm_jax.model.layers import Linear, LinearKind
from glm_jax.parallel.collectives import axis_size, copy_to_tensor_parallel, local_offset
from glm_jax.parallel.layout import TENSOR

LORA_A, LORA_B = ADAPTER_MATRICES
RANK_AXIS = "lora_rank"
# The numbers of these uses of a layer's dropout key; the network's own are below.
_FIRST_USE = 3


class LoraLinear(Linear):
    """`Linear` with an adapter, where it is one of the targets.

    Attributes:
      lora: rank, scale, dropout and targets.
    """

    lora: LoraConfig = LoraConfig()

    def product(
        self, inputs: Float[Array, "... I"], dropout: Dropout | None
    ) -> Float[Array, "... O"]:
        """The map before the bias, the adapter's branch included."""
        outputs = super().product(inputs, dropout)
        target = "/".join(self.path[-2:])
        if not self.lora.rank or target not in self.lora.targets:
            return outputs
        first, second = self._adapter(inputs.shape[-1])
        inputs = self._dropped(inputs.astype(first.dtype), dropout, TARGETS.index(target))
        inner = self.lora.scale * (inputs @ first)  # [..., I] -> [..., r]
        contracted = (((inner.ndim - 1,), (0,)), ((), ()))
        return outputs + jax.lax.dot_general(inner, second, contracted)

    def _adapter(self, in_features: int) -> tuple[Float[Array, "I r"], Float[Array, "r ..."]]:
        """The two matrices in the compute dtype, of this device's rows and columns."""
        rank = self.lora.rank
        shapes = {LORA_A: (in_features, rank), LORA_B: (rank, *self.local_features)}
        axes = {LORA_A: (self.axes[0], RANK_AXIS), LORA_B: (RANK_AXIS, *self.axes[1:])}
        # The fan-in of all devices.
        fan_in = in_features * (axis_size(TENSOR) if self.is_row_parallel else 1)
        inits = {LORA_A: uniform(fan_in), LORA_B: nn.initializers.zeros}

        def matrix(name: str) -> Any:
            init = nn.with_logical_partitioning(inits[name], axes[name])
            return self.param(name, init, shapes[name]).astype(jnp.dtype(self.dtype))

        first, second = matrix(LORA_A), matrix(LORA_B)
        # Each tensor-parallel device has a share of the gradient of the matrix that they all have.
        if self.is_row_parallel:
            return first, copy_to_tensor_parallel(second)
        return copy_to_tensor_parallel(first), second

    def _dropped(
        self, inputs: Float[Array, "B L I"], dropout: Dropout | None, number: int
    ) -> Float[Array, "B L I"]:
        if dropout is None or not self.lora.dropout:
            return inputs
        width = inputs.shape[-1]
        parallel = self.is_row_parallel
        return dropout.hidden(
            self.lora.dropout,
            inputs,
            _FIRST_USE + number,
            first_column=local_offset((TENSOR,), width) if parallel else 0,
            num_columns=width * axis_size(TENSOR) if parallel else width,
        )


def merged_adapters(params: PyTree, lora: LoraConfig) -> PyTree:
    """A network's parameters without adapters: W + s A B in place of W, A and B; can be jitted."""
    if not lora.rank:
        return params

    def merge(tree: dict[str, Any]) -> dict[str, Any]:
        made: dict[str, Any] = {
            name: merge(value) if isinstance(value, dict) else value for name, value in tree.items()
        }
        if LORA_A in made:
            first, second = made.pop(LORA_A), made.pop(LORA_B)
            delta = jnp.einsum("nir,nr...->ni...", first, second)
            made["kernel"] = made["kernel"] + lora.scale * delta
        return made

    return merge(params)


def linear_kind(lora: LoraConfig) -> LinearKind:
    """The linear maps of a network with these adapters."""
    return partial(LoraLinear, lora=lora) if lora.rank else Linear
