"""Greedy decoding of several blanks of several texts in one compiled loop.

Every step runs the whole sequence through the network and reads one position of each text. Because
a position never sees what follows it in Part B, the unused end of a row needs no mask.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, PyTree

from glm_jax.model import GLM

SHORTEST_BUFFER = 64


@dataclasses.dataclass(frozen=True)
class Prompt:
    """Part A of one text: its ids, and where its masks are from left to right."""

    ids: list[int]
    masks: list[int]


class Blanks(NamedTuple):
    """What is to be filled; S is the largest number of blanks in a text."""

    prefix_length: Int[Array, "B"]
    places: Int[Array, "B S"]  # positions of the masks in Part A
    count: Int[Array, "B"]  # blanks of each text


class Progress(NamedTuple):
    """How far the texts are filled; T is the greatest length of a blank."""

    tokens: Int[Array, "B L"]  # Part A, then Part B so far
    position_ids: Int[Array, "B 2 L"]
    length: Int[Array, "B"]  # positions of `tokens` in use
    current: Int[Array, "B"]  # the blank being filled, `count` when all are
    filled: Int[Array, "B S T"]  # ids of every blank
    filled_length: Int[Array, "B S"]


def fill_prompts(
    model: GLM,
    params: PyTree,
    prompts: Sequence[Prompt],
    *,
    begin: int,
    ends: Sequence[int],
    max_blank_length: int,
) -> list[list[list[int]]]:
    """Fills the blanks of every prompt from left to right; later ones see the earlier ones.

    A blank begins with `begin` at the mask's position and block position 1, and is over at the
    first token of `ends`, or when it has `max_blank_length` tokens. As in the original, the token
    that reaches this limit is part of the blank but not of what later blanks see.

    Returns:
      For every prompt and mask the ids put there, without `begin` and end.
    """
    blanks, progress = _start(prompts, begin, max_blank_length)
    while True:
        progress = _run(model, params, blanks, progress, begin, tuple(ends))
        if jnp.all(progress.current == blanks.count):
            break
        progress = _grow(progress)
    filled, lengths = np.asarray(progress.filled), np.asarray(progress.filled_length)
    return [
        [filled[row, blank, : lengths[row, blank]].tolist() for blank in range(len(prompt.masks))]
        for row, prompt in enumerate(prompts)
    ]


def _start(prompts: Sequence[Prompt], begin: int, max_blank_length: int) -> tuple[Blanks, Progress]:
    """The arrays of some prompts, in sizes that are powers of two so that few programs compile."""
    rows = _power_of_two(len(prompts))
    columns = _power_of_two(max(len(prompt.masks) for prompt in prompts))
    longest = max(len(prompt.ids) for prompt in prompts)
    buffer = max(SHORTEST_BUFFER, _power_of_two(longest + 1))

    places = np.zeros((rows, columns), np.int32)
    count, prefix_length = np.zeros(rows, np.int32), np.ones(rows, np.int32)
    tokens = np.zeros((rows, buffer), np.int32)
    position_ids = np.zeros((rows, 2, buffer), np.int32)
    for row, prompt in enumerate(prompts):
        size = len(prompt.ids)
        count[row], prefix_length[row] = len(prompt.masks), size
        places[row, : count[row]] = prompt.masks
        tokens[row, : size + 1] = [*prompt.ids, begin]
        position_ids[row, 0, : size + 1] = [*range(size), places[row, 0]]
        position_ids[row, 1, size] = 1
    blanks = Blanks(jnp.asarray(prefix_length), jnp.asarray(places), jnp.asarray(count))
    return blanks, Progress(
        jnp.asarray(tokens),
        jnp.asarray(position_ids),
        length=blanks.prefix_length + 1,
        current=jnp.zeros_like(blanks.count),
        filled=jnp.zeros((rows, columns, max_blank_length), jnp.int32),
        filled_length=jnp.zeros_like(blanks.places),
    )


def _grow(progress: Progress) -> Progress:
    """The same progress with room for twice as many positions."""
    size = progress.tokens.shape[1]
    return progress._replace(
        tokens=jnp.pad(progress.tokens, ((0, 0), (0, size))),
        position_ids=jnp.pad(progress.position_ids, ((0, 0), (0, 0), (0, size))),
    )


@partial(jax.jit, static_argnums=0)
def _run(
    model: GLM,
    params: PyTree,
    blanks: Blanks,
    progress: Progress,
    begin: int,
    ends: tuple[int, ...],
) -> Progress:
    """Decodes until every blank is filled or a text that has blanks left has used its buffer."""

    def goes_on(progress: Progress) -> Bool[Array, ""]:
        active = progress.current < blanks.count
        room = progress.length < progress.tokens.shape[1]
        return jnp.any(active) & jnp.all(room | ~active)

    def step(progress: Progress) -> Progress:
        return _advance(_next_token(model, params, blanks, progress), blanks, progress, begin, ends)

    return jax.lax.while_loop(goes_on, step, progress)


def _next_token(model: GLM, params: PyTree, blanks: Blanks, progress: Progress) -> Int[Array, "B"]:
    """The most probable token after the last position in use of every text."""
    variables = {"params": params}
    inputs = (progress.tokens, progress.position_ids, blanks.prefix_length)
    hidden = cast(Array, model.apply(variables, *inputs, method="hidden_states"))
    last = jnp.take_along_axis(hidden, progress.length[:, None, None] - 1, axis=1)[:, 0]
    return jnp.argmax(cast(Array, model.apply(variables, last, method="logits")), axis=-1)


def _advance(
    token: Int[Array, "B"],
    blanks: Blanks,
    progress: Progress,
    begin: int,
    ends: tuple[int, ...],
) -> Progress:
    """Adds one predicted token to every text: it goes on with a blank or ends it."""
    rows = jnp.arange(token.shape[0])
    num_columns, max_blank_length = progress.filled.shape[1:]
    active = progress.current < blanks.count
    blank = jnp.minimum(progress.current, num_columns - 1)
    taken = progress.filled_length[rows, blank]

    kept = active & ~jnp.isin(token, jnp.asarray(ends))
    slot = jnp.where(kept, taken, max_blank_length)  # a slot beyond the end drops the write
    filled = progress.filled.at[rows, blank, slot].set(token, mode="drop")
    taken = taken + kept
    closes = active & (~kept | (taken == max_blank_length))

    current = progress.current + closes
    opens = closes & (current < blanks.count)
    appends = opens | (active & ~closes)
    end = jnp.where(appends, progress.length, progress.tokens.shape[1])
    place = blanks.places[rows, jnp.minimum(current, num_columns - 1)]
    positions = jnp.stack([place, jnp.where(opens, 1, taken + 1)], axis=1)
    written = jnp.where(opens, begin, token)
    return Progress(
        tokens=progress.tokens.at[rows, end].set(written, mode="drop"),
        position_ids=progress.position_ids.at[rows, :, end].set(positions, mode="drop"),
        length=progress.length + appends,
        current=current,
        filled=filled,
        filled_length=progress.filled_length.at[rows, blank].set(taken),
    )


def _power_of_two(number: int) -> int:
    """The smallest power of two that is at least `number`."""
    return 1 << max(number - 1, 0).bit_length()
