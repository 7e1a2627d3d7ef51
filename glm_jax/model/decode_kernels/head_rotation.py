"""Rotary positions of rows of heads, inside a kernel."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jax.experimental.pallas import tpu as pltpu
from jaxtyping import Array, Float

from glm_jax.model.rotary import Rotation


class HeadRotation(NamedTuple):
    """What each number of a row is multiplied by, and what the one that it is rotated with is."""

    cosine: Float[Array, "B C"]
    sine: Float[Array, "B C"]


def head_rotation(rotation: Rotation, columns: int) -> HeadRotation:
    """The rotation of one position of every example, for rows of heads with C columns in all."""
    cosine, sine = (array[:, 0, :, None] for array in rotation)  # [B, S, 1, F]

    def rows(first: Float[Array, "B S 1 F"], second: Float[Array, "B S 1 F"]):
        head = jnp.concatenate([first, second], axis=2).reshape(len(first), -1)
        return jnp.tile(head, (1, columns // head.shape[1]))

    return HeadRotation(rows(cosine, cosine), rows(-sine, sine))


def rotated(
    values: Float[Array, "B C"], rotation: HeadRotation, distance: int
) -> Float[Array, "B C"]:
    """Rows of heads, rotated; as `glm_jax.model.rotary.rotate`.

    Args:
      values: in float32.
      rotation: of the rows.
      distance: between two numbers that are rotated with each other, F.
    """
    column = lax.broadcasted_iota(jnp.int32, values.shape, 1)
    before = pltpu.roll(values, distance, 1)
    after = pltpu.roll(values, values.shape[1] - distance, 1)
    partner = jnp.where(column // distance % 2 == 0, after, before)
    return values * rotation.cosine + partner * rotation.sine
