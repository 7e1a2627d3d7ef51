"""Dropout that every device draws for its own shard, equal in every layout."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key


@dataclasses.dataclass(frozen=True)
class Dropout:
    """Sets values to zero at random and scales up the others.

    Every position of every example has a random key of its own, from its index in the global batch
    and sequence. So no device draws bits for other devices' shards, and the layout does not change
    what is dropped.

    Attributes:
      key: of a step, or of one of its layers.
      first_example: index of the first example in the global batch.
      first_position: index of the first position in the full sequence.
      first_head: index of the first head.
    """

    key: Key[Array, ""]
    first_example: Int[Array, ""] | int = 0
    first_position: Int[Array, ""] | int = 0
    first_head: Int[Array, ""] | int = 0

    def of_layer(self, layer: Int[Array, ""]) -> Dropout:
        """The same with another key for every layer."""
        return dataclasses.replace(self, key=jax.random.fold_in(self.key, layer + 1))

    def from_position(self, position: int) -> Dropout:
        """The same for the positions from one of this shard on."""
        return dataclasses.replace(self, first_position=self.first_position + position)

    def hidden(
        self,
        rate: float,
        values: Float[Array, "B L D"],
        number: int,
        *,
        first_column: Int[Array, ""] | int = 0,
        num_columns: int | None = None,
    ) -> Float[Array, "B L D"]:
        """Hidden states with a fraction `rate` dropped.

        Args:
          rate: the fraction.
          values: hidden states, or some of their columns.
          number: distinguishes uses of one key.
          first_column: the index of their first column among all.
          num_columns: all columns; None where `values` has them all.
        """
        batch, length, width = values.shape
        total = width if num_columns is None else num_columns

        def keep(key: Key[Array, ""]) -> Bool[Array, "D"]:
            kept = _keep(key, rate, total)
            if total == width:
                return kept
            return jax.lax.dynamic_slice_in_dim(kept, first_column, width)

        keys = self._keys(jax.random.fold_in(self.key, number), batch, length)
        return _drop(values, rate, jax.vmap(jax.vmap(keep))(keys))

    def probabilities(
        self, rate: float, values: Float[Array, "B H L M"]
    ) -> Float[Array, "B H L M"]:
        """Attention probabilities with a fraction `rate` dropped."""
        batch, num_heads, length, num_keys = values.shape
        keys = self._keys(jax.random.fold_in(self.key, _PROBABILITIES), batch, length)
        heads = self.first_head + jnp.arange(num_heads)

        def keep(key: Key[Array, ""], head: Int[Array, ""]) -> Bool[Array, "M"]:
            return _keep(jax.random.fold_in(key, head), rate, num_keys)

        over_positions = jax.vmap(keep, in_axes=(0, None))
        over_heads = jax.vmap(over_positions, in_axes=(None, 0))
        return _drop(values, rate, jax.vmap(over_heads, in_axes=(0, None))(keys, heads))

    def _keys(self, key: Key[Array, ""], batch: int, length: int) -> Key[Array, "B L"]:
        examples = self.first_example + jnp.arange(batch)
        positions = self.first_position + jnp.arange(length)
        of_example = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, examples)
        of_position = jax.vmap(jax.random.fold_in, in_axes=(None, 0))
        return jax.vmap(of_position, in_axes=(0, None))(of_example, positions)


def drop_hidden(
    dropout: Dropout | None, rate: float, values: Float[Array, "B L D"], number: int
) -> Float[Array, "B L D"]:
    """`Dropout.hidden`, or the values themselves without dropout."""
    return dropout.hidden(rate, values, number) if dropout and rate > 0.0 else values


# The number of this use among those of one key; hidden states count from 0.
_PROBABILITIES = 2


def _keep(key: Key[Array, ""], rate: float, size: int) -> Bool[Array, "S"]:
    return jax.random.bernoulli(key, 1.0 - rate, (size,))


def _drop(
    values: Float[Array, "..."], rate: float, kept: Bool[Array, "..."]
) -> Float[Array, "..."]:
    return jnp.where(kept, values / (1.0 - rate), 0.0).astype(values.dtype)
