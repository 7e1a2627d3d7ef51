"""The attention mask of blank infilling."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Bool, Int


def prefix_mask(prefix_length: Int[Array, "B"], length: int) -> Bool[Array, "B 1 L L"]:
    """Which key positions each query position sees: True where visible.

    Position i sees j if `j <= i` or `j < prefix_length`: Part A sees itself in both directions,
    Part B sees Part A and its own past. The axis of size 1 is for the heads.

    Source: paper, section 2.1 and Figure 2.
    """
    query = jnp.arange(length)[:, None]
    key = jnp.arange(length)[None, :]
    return (key <= query) | (key < prefix_length[:, None, None, None])
