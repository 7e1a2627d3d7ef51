"""Rotary positions: queries and keys are rotated by angles that grow with their positions.

A head's vector is divided into as many equal parts as there are kinds of positions; each part is
rotated by its own. Within a part the first half of the dimensions is rotated with the second half.

Source: Su et al. (2021), RoFormer; ChatGLM-6B's code.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

BASE = 10000.0
ROTARY_PRECISIONS = ("float16_frequencies", "float16", "float32")


class Rotation(NamedTuple):
    """Cosines and sines of every position: S kinds of positions, F frequencies each."""

    cosine: Float[Array, "B L S F"]
    sine: Float[Array, "B L S F"]


def frequencies(count: int, precision: str) -> Float[np.ndarray, "F"]:
    """The angles of position 1, in radians, in float32; rounded to float16 unless "float32"."""
    exact = 1.0 / BASE ** (np.arange(0, 2 * count, 2, dtype=np.float32) / np.float32(2 * count))
    rounded = exact if precision == "float32" else exact.astype(np.float16)
    return rounded.astype(np.float32)


def rotation_of(position_ids: Int[Array, "B S L"], head_size: int, precision: str) -> Rotation:
    """The rotation of positions.

    Args:
      position_ids: S kinds of positions.
      head_size: K; a multiple of 2 S.
      precision: "float16_frequencies" rounds the frequencies to float16 and computes angles in
        float32; "float16" computes angles, cosines and sines in float16 too; "float32" rounds
        nothing. See docs/chatglm.md. Under `jax.enable_x64`, float64 takes the place of float32.
    """
    count = head_size // (2 * position_ids.shape[1])
    wide = jnp.result_type(float)
    dtype = jnp.float16 if precision == "float16" else wide
    positions = jnp.swapaxes(position_ids, 1, 2)[..., None].astype(dtype)  # [B, L, S, 1]
    angles = positions * jnp.asarray(frequencies(count, precision), dtype)
    cosine, sine = jnp.cos(angles), jnp.sin(angles)
    return Rotation(cosine.astype(wide), sine.astype(wide))


def rotate(vectors: Float[Array, "B L H K"], rotation: Rotation) -> Float[Array, "B L H K"]:
    """Queries or keys, rotated in the dtype of the rotation."""
    batch, length, num_heads, _ = vectors.shape
    kinds, count = rotation.cosine.shape[2:]
    halves = vectors.reshape(batch, length, num_heads, kinds, 2, count)
    halves = halves.astype(rotation.cosine.dtype)
    first, second = halves[..., 0, :], halves[..., 1, :]
    cosine, sine = rotation.cosine[:, :, None], rotation.sine[:, :, None]  # [B, L, 1, S, F]
    rotated = [first * cosine - second * sine, second * cosine + first * sine]
    return jnp.stack(rotated, axis=-2).reshape(vectors.shape).astype(vectors.dtype)
