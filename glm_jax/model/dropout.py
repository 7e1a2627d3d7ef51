"""Dropout that every device draws for its own shard, equal in every layout."""

from __future__ import annotations

import dataclasses
from functools import partial

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from glm_jax.model.random_streams import Streams


@dataclasses.dataclass(frozen=True)
class Dropout:
    """Sets values to zero at random and scales up the others.

    Every position of every example has a stream of random numbers of its own, from its index in the
    global batch and sequence. So no device draws bits for other devices' shards, and the layout
    does not change what is dropped.

    Attributes:
      key: of a step, or of one of its layers.
      first_example: index of the first example in the global batch.
      first_position: index of the first position in the full sequence.
      first_head: index of the first head.
      positions: indices in this shard's sequence, for values of these alone; None for all.
    """

    key: Key[Array, ""]
    first_example: Int[Array, ""] | int = 0
    first_position: Int[Array, ""] | int = 0
    first_head: Int[Array, ""] | int = 0
    positions: Int[Array, "B T"] | None = None

    def of_layer(self, layer: Int[Array, ""]) -> Dropout:
        """The same with another key for every layer."""
        return dataclasses.replace(self, key=jax.random.fold_in(self.key, layer + 1))

    def from_position(self, position: int) -> Dropout:
        """The same for the positions from one of this shard on."""
        return dataclasses.replace(self, first_position=self.first_position + position)

    def at_positions(self, positions: Int[Array, "B T"]) -> Dropout:
        """The same for some of this shard's positions, of which values have T."""
        return dataclasses.replace(self, positions=positions)

    def hidden(
        self,
        rate: float,
        values: Float[Array, "B L D"],
        number: int,
        *,
        first_column: Int[Array, ""] | int = 0,
    ) -> Float[Array, "B L D"]:
        """Hidden states with a fraction `rate` dropped.

        Args:
          rate: the fraction.
          values: hidden states, or some of their columns.
          number: distinguishes uses of one key.
          first_column: the index of their first column among all.
        """
        batch, length, _ = values.shape
        streams = self._positions(number, batch, length).expand(-1)
        return drop(rate, values, streams, first_column)

    def probabilities(
        self, rate: float, batch: int, num_heads: int, length: int
    ) -> ProbabilityDropout:
        """The dropout of the attention probabilities of this shard's queries."""
        heads = (self.first_head + jnp.arange(num_heads))[:, None]
        positions = self._positions(_PROBABILITIES, batch, length).expand(1)
        return ProbabilityDropout(positions.at(heads), rate)

    def _positions(self, number: int, batch: int, length: int) -> Streams:
        """A stream for each position [B, L]."""
        stream = Streams.of_key(jax.random.fold_in(self.key, number))
        examples = (self.first_example + jnp.arange(batch))[:, None]
        positions = jnp.arange(length) if self.positions is None else self.positions
        return stream.at(examples).at(self.first_position + positions)


@flax.struct.dataclass
class ProbabilityDropout:
    """Dropout of attention probabilities.

    Attributes:
      streams: of each query and head, [B, H, L].
      rate: the fraction that is dropped.
    """

    streams: Streams
    rate: float = flax.struct.field(pytree_node=False)

    def __call__(self, probabilities: Float[Array, "B H L M"]) -> Float[Array, "B H L M"]:
        """The probabilities with some dropped."""
        return drop(self.rate, probabilities, self.streams.expand(-1))


def drop_hidden(
    dropout: Dropout | None, rate: float, values: Float[Array, "B L D"], number: int
) -> Float[Array, "B L D"]:
    """`Dropout.hidden`, or the values themselves without dropout."""
    return dropout.hidden(rate, values, number) if dropout and rate > 0.0 else values


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def drop(
    rate: float,
    values: Float[Array, "... D"],
    streams: Streams,
    first_column: Int[Array, ""] | int = 0,
) -> Float[Array, "... D"]:
    """Values with a fraction `rate` set to zero and the others divided by `1 - rate`.

    The backward pass draws the bits again: only two words per stream are kept for it.

    Args:
      rate: the fraction.
      values: in any dtype; they are scaled in float32.
      streams: of random numbers; they broadcast against `values`, whose last axis has the columns.
      first_column: the index of the first column in its stream.
    """
    kept = streams.keep(rate, first_column + jnp.arange(values.shape[-1]))
    return scale_kept(rate, values.astype(jnp.float32), kept).astype(values.dtype)


def _drop_forward(rate, values, streams, first_column):
    return drop(rate, values, streams, first_column), (streams, first_column)


def _drop_backward(rate, kept, gradient):
    return drop(rate, gradient, *kept), None, None


drop.defvjp(_drop_forward, _drop_backward)


def scale_kept(
    rate: float, values: Float[Array, "..."], kept: Bool[Array, "..."]
) -> Float[Array, "..."]:
    """Float32 values divided by `1 - rate` where they are kept, 0 elsewhere."""
    return jnp.where(kept, values * (1.0 / (1.0 - rate)), 0.0)


# The number of this use among those of one key; hidden states count from 0.
_PROBABILITIES = 2
