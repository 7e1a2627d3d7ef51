"""Random bits by a hash of few operations: what dropout needs, and not more.

A cryptographic generator costs more than all other operations between the products of a network
together. A hash of where a value is disappears in the fusions around it, and is cheaper to compute
again in the backward pass than its results are to store.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, Key, UInt32

# Odd, so that multiplying by them is one-to-one modulo 2^32. The first is 2^32 divided by the
# golden ratio; the other two are of "lowbias32", a hash of two multiplications that was searched
# for the least bias (Wellons, hash-prospector, 2018).
_SPREAD = np.uint32(0x9E3779B1)
_FACTORS = np.uint32(0x7FEB352D), np.uint32(0x846CA68B)


class Streams(NamedTuple):
    """Streams of random numbers, each known by two words."""

    first: UInt32[Array, "..."]
    second: UInt32[Array, "..."]

    @classmethod
    def of_key(cls, key: Key[Array, ""]) -> Streams:
        """The stream of a key."""
        return cls(*jax.random.bits(key, (2,), jnp.uint32))

    def at(self, index: Int[Array, "..."]) -> Streams:
        """Another stream for every index; shapes broadcast."""
        first = _mix(self.first ^ (index.astype(jnp.uint32) * _SPREAD))
        return Streams(first, _mix(self.second ^ first))

    def expand(self, axis: int) -> Streams:
        """The same with an axis of size 1."""
        return Streams(jnp.expand_dims(self.first, axis), jnp.expand_dims(self.second, axis))

    def keep(self, rate: float, column: Int[Array, "..."]) -> Bool[Array, "..."]:
        """False with probability `rate`, independently for every column of a stream.

        Args:
          rate: in [0, 1).
          column: indices in the streams; shapes broadcast.
        """
        threshold = np.uint32(min(round(rate * 2**32), 2**32 - 1))
        bits = column.astype(jnp.uint32) * _SPREAD + self.first
        bits = (bits ^ (bits >> 16)) * _FACTORS[0]
        # The second word enters between the rounds: two streams whose first words are a few columns
        # apart are not shifted copies of each other.
        bits = bits ^ self.second
        bits = (bits ^ (bits >> 15)) * _FACTORS[1]
        return bits ^ (bits >> 16) >= threshold


def _mix(bits: UInt32[Array, "..."]) -> UInt32[Array, "..."]:
    """A one-to-one function of 32 bits in which every bit of the result depends on all."""
    bits = (bits ^ (bits >> 16)) * _FACTORS[0]
    bits = (bits ^ (bits >> 15)) * _FACTORS[1]
    return bits ^ (bits >> 16)
