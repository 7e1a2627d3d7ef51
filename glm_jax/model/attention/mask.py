"""The attention masks of blank infilling: of full sequences, and of positions after a cache."""

from __future__ import annotations

import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Int


def prefix_mask(prefix_length: Int[Array, "#B"], length: int) -> Bool[Array, "#B 1 L L"]:
    """Which key positions each query position sees: True where visible.

    Position i sees j if `j <= i` or `j < prefix_length`: Part A sees itself in both directions,
    Part B sees Part A and its own past. The axis of size 1 is for the heads.

    Source: paper, section 2.1 and Figure 2.
    """
    return mask_of_part(prefix_length, 0, length, length)


def mask_of_part(
    prefix_length: Int[Array, "#B"], start: Int[ArrayLike, ""], length: int, num_keys: int
) -> Bool[Array, "#B 1 L M"]:
    """The rows of `prefix_mask` over M positions for the L queries from `start` on."""
    positions = jnp.asarray(start) + jnp.arange(length)
    return mask_of_positions(prefix_length, positions[None], num_keys)


def mask_of_positions(
    prefix_length: Int[Array, "#B"], positions: Int[Array, "#B T"], num_keys: int
) -> Bool[Array, "#B 1 T M"]:
    """The rows of `prefix_mask` over M positions for queries at any of them."""
    key = jnp.arange(num_keys)
    return (key <= positions[:, None, :, None]) | (key < prefix_length[:, None, None, None])


def memory_mask(
    start: Int[ArrayLike, "#B"],
    length: int,
    num_slots: int,
    *,
    prefix_length: Int[ArrayLike, "#B"] | int = 0,
    first_slot: Int[ArrayLike, "#B"] | int = 0,
) -> Bool[Array, "#B 1 L M"]:
    """Which slots of a key/value cache the new positions see: True where visible.

    New position i is in slot `start + i`. It sees all slots below `start`, and of the new positions
    those that `prefix_mask` shows. Slots that have not been written, or that hold padding, come
    after it and stay hidden.

    Args:
      start: slots in use before the new positions, per example or [1] for all.
      length: L, the number of new positions.
      num_slots: M.
      prefix_length: leading new positions that every new position sees.
      first_slot: the oldest slot still visible. `start - n` gives what the original calls a
        max_memory_length of n.

    Source: original code, `sep` together with memory.
    """
    first_new, prefix, first = (
        jnp.reshape(jnp.asarray(number), (-1, 1, 1, 1))
        for number in (start, prefix_length, first_slot)
    )
    query = jnp.arange(length)[:, None]
    slot = jnp.arange(num_slots)[None, :]
    return (slot >= first) & (slot < first_new + jnp.maximum(query + 1, prefix))


def answers_mask(
    context_length: Int[Array, "R"], answer_ids: Int[Array, "R Q"], num_context: int
) -> Bool[Array, "R 1 Q M"]:
    """What the positions of answers see: their context, and their own answer up to themselves.

    Args:
      context_length: positions of each context.
      answer_ids: the answer of each position behind it.
      num_context: positions that contexts are padded to; M = num_context + Q.
    """
    rows, room = answer_ids.shape
    index = jnp.arange(room)
    same = answer_ids[:, :, None] == answer_ids[:, None, :]
    own = same & (index[None, :] <= index[:, None])
    context = jnp.arange(num_context) < context_length[:, None, None]
    context = jnp.broadcast_to(context, (rows, room, num_context))
    return jnp.concatenate([context, own], axis=-1)[:, None]
