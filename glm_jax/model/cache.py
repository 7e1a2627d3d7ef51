"""The keys and values of positions that have been through the network.

The original keeps the inputs of every layer and computes keys and values from them at every step;
keeping keys and values gives the same outputs.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from glm_jax.model.config import GLMConfig
from glm_jax.parallel.rules import constrain

_AXES = ("layers", "batch", "length", "heads_out", "head")


class KeyValueCache(NamedTuple):
    """Keys and values of every layer; M slots for each example, written in any order."""

    key: Float[Array, "N B M H K"]
    value: Float[Array, "N B M H K"]


class LayerMemory(NamedTuple):
    """The part of a cache that one layer works on, and where the new positions go."""

    cache: KeyValueCache
    layer: Int[Array, ""]
    start: Int[Array, "B"]

    def write(
        self, key: Float[Array, "B L H K"], value: Float[Array, "B L H K"]
    ) -> tuple[KeyValueCache, Float[Array, "B M H K"], Float[Array, "B M H K"]]:
        """Puts L new positions into the slots from `start` on; what lies beyond M is dropped.

        Returns:
          The whole new cache, and this layer's keys and values in it.
        """
        slots = self.start[:, None] + jnp.arange(key.shape[1])
        places = jnp.stack([jnp.full_like(slots, self.layer), slots], axis=-1)  # [B, L, 2]
        # The cache passes through the loop over layers and is written in place; handing the loop
        # one layer at a time would copy all of it at every step.
        cache = KeyValueCache(
            *(
                constrain(_write(old, places, new), _AXES)
                for old, new in zip(self.cache, (key, value), strict=True)
            )
        )
        return cache, cache.key[self.layer], cache.value[self.layer]


def _write(
    slots: Float[Array, "N B M H K"], places: Int[Array, "B L 2"], new: Float[Array, "B L H K"]
) -> Float[Array, "N B M H K"]:
    """Puts `new` into the (layer, slot) of each example that `places` says.

    As plain indexing would, but the axis of examples is known to the compiler as one that places
    and cache share: so nothing is gathered where examples are spread over devices, and nothing
    transposed as under vmap.
    """
    return jax.lax.scatter(
        slots,
        places,
        new,
        jax.lax.ScatterDimensionNumbers(
            update_window_dims=(2, 3),
            inserted_window_dims=(0, 2),
            scatter_dims_to_operand_dims=(0, 2),
            operand_batching_dims=(1,),
            scatter_indices_batching_dims=(0,),
        ),
        unique_indices=True,
        mode=jax.lax.GatherScatterMode.FILL_OR_DROP,
    )


def empty_cache(config: GLMConfig, batch_size: int, num_slots: int) -> KeyValueCache:
    """A cache of zeros in the compute dtype, laid out over the mesh under `jax.set_mesh`.

    Args:
      config: the network.
      batch_size: B.
      num_slots: M, the most positions that an example may take, Part A and Part B together.
    """
    shape = (
        config.num_layers,
        batch_size,
        num_slots,
        config.num_attention_heads,
        config.head_size,
    )
    dtype = jnp.dtype(config.compute_dtype)
    # Two arrays and not one twice, so that both can be donated.
    return KeyValueCache(*(constrain(jnp.zeros(shape, dtype), _AXES) for _ in range(2)))
