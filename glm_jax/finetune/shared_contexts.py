"""Rows of answers to one text -> one row that has the text once, and all of its answers behind it.

No position before an answer sees it, so the hidden states of a text do not depend on the answer
behind it: answers to one text can share them, if no answer sees another. Scores and gradients are
those of separate rows, at the cost of about one. Rows whose texts differ, because they were
truncated for answers of different lengths, are not merged.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float, Int

Batch = Mapping[str, np.ndarray]

# The room for answers is a multiple of this, as tiles of accelerators are.
ANSWERS_MULTIPLE = 32
# What is kept of every position of a row, and what of positions of answers only.
_BY_POSITION = ("tokens", "position_ids", "prompt_ids")
_OF_ANSWERS = ("targets", "loss_mask")


def has_choices(batch: Batch) -> bool:
    """Whether the rows of a batch are scored answers, several for each example.

    Segments of answers are not: each has those before it in its context.
    """
    return batch["tokens"].ndim == 3 and "targets" in batch and "segment_ids" not in batch


def share_contexts(batch: Batch) -> Batch:
    """The same examples with every text once; batches without choices are returned as they are.

    The context of a row is what comes before its first position with a loss: Part A, and for text
    that is predicted from left to right also the start of Part B. An answer is the rest, up to the
    last position with a loss.

    All shapes are functions of the batch, with few different values: G, the maximum number of
    different contexts of an example, is a power of two, and Q, the maximum number of tokens of all
    answers to one context, is 1 or 1.5 times a power of two.

    Args:
      batch: of B examples with C choices and rows of L positions.

    Returns:
      tokens [B, G, L + Q], position_ids [B, G, 2, L + Q] and prompt_ids [B, G, L + Q] where there
      are some: contexts, padded to L, and behind each its answers, one after another.
      prefix_length [B, G] of the contexts, and context_length [B, G]. For the positions from L on:
      answer_ids [B, G, Q], the number of the choice, counted from 1, or 0 for padding; targets and
      loss_mask [B, G, Q]. choice_mask [B, C]. What else there is remains.
    """
    if not has_choices(batch):
        return batch
    starts, ends = _scored(batch["loss_mask"])
    mask = batch.get("choice_mask", np.ones(starts.shape, np.float32))
    groups = [
        _choices_by_context(batch, example, starts[example], mask[example])
        for example in range(len(mask))
    ]
    sizes = ends - starts
    room = answers_room(
        max(sizes[n, some].sum() for n, group in enumerate(groups) for some in group)
    )
    shared = _empty(batch, _power_of_two(max(map(len, groups))), room)
    for example, group in enumerate(groups):
        for number, choices in enumerate(group):
            slot, first = (example, number), (example, choices[0])
            _put_context(shared, batch, slot, first, int(starts[first]))
            end = 0
            for choice in choices:
                source = (example, choice)
                part = slice(int(starts[source]), int(ends[source]))
                end = _put_answer(shared, batch, slot, source, part, end)
    kept = {name: values for name, values in batch.items() if name not in shared}
    return kept | shared | {"choice_mask": mask}


def answers_room(num_tokens: int) -> int:
    """Q for answers of that many tokens: 32, 64, 96, 128, 192, 256, 384, ..."""
    tiles = -(-max(int(num_tokens), 1) // ANSWERS_MULTIPLE)
    power = _power_of_two(tiles)
    # Half a step below the power of two, where that is enough.
    return ANSWERS_MULTIPLE * (3 * power // 4 if power >= 4 and tiles <= 3 * power // 4 else power)


def _choices_by_context(
    batch: Batch, example: int, starts: Int[np.ndarray, "C"], choice_mask: Float[np.ndarray, "C"]
) -> list[list[int]]:
    """The choices of an example that have the same context, for each of its contexts."""
    groups: dict[tuple[bytes | int, ...], list[int]] = {}
    for choice in np.flatnonzero(choice_mask).tolist():
        context = (
            batch[name][example, choice][..., : starts[choice]].tobytes()
            for name in _present(_BY_POSITION, batch)
        )
        key = (int(batch["prefix_length"][example, choice]), *context)
        groups.setdefault(key, []).append(choice)
    return list(groups.values())


def _put_context(
    shared: dict[str, np.ndarray],
    batch: Batch,
    slot: tuple[int, int],
    source: tuple[int, int],
    end: int,
) -> None:
    """Copies the context of a row, which ends before `end`."""
    shared["prefix_length"][slot] = batch["prefix_length"][source]
    shared["context_length"][slot] = end
    for name in _present(_BY_POSITION, batch):
        shared[name][slot][..., :end] = batch[name][source][..., :end]


def _put_answer(
    shared: dict[str, np.ndarray],
    batch: Batch,
    slot: tuple[int, int],
    source: tuple[int, int],
    part: slice,
    first: int,
) -> int:
    """Copies a part of a row behind its context from `first` on; returns the index after it."""
    length, end = batch["tokens"].shape[-1], first + part.stop - part.start
    for name in _present(_BY_POSITION, batch):
        shared[name][slot][..., length + first : length + end] = batch[name][source][..., part]
    for name in _OF_ANSWERS:
        shared[name][slot][first:end] = batch[name][source][part]
    shared["answer_ids"][slot][first:end] = source[1] + 1
    return end


def _empty(batch: Batch, num_contexts: int, room: int) -> dict[str, np.ndarray]:
    """Arrays for the shared rows, without any text; an unused row is one position of padding."""
    size, _, length = batch["tokens"].shape
    lead = (size, num_contexts)
    by_position = {
        name: np.zeros((*lead, *batch[name].shape[2:-1], length + room), batch[name].dtype)
        for name in _present(_BY_POSITION, batch)
    }
    of_answers = {name: np.zeros((*lead, room), batch[name].dtype) for name in _OF_ANSWERS}
    lengths = {name: np.ones(lead, np.int32) for name in ("prefix_length", "context_length")}
    return by_position | of_answers | lengths | {"answer_ids": np.zeros((*lead, room), np.int32)}


def _scored(
    loss_mask: Float[np.ndarray, "B C L"],
) -> tuple[Int[np.ndarray, "B C"], Int[np.ndarray, "B C"]]:
    """The first position with a loss of every row, and the one after the last; 0 without any."""
    counts = loss_mask > 0
    ends = counts.shape[-1] - np.argmax(counts[..., ::-1], axis=-1)
    return np.argmax(counts, axis=-1), np.where(counts.any(axis=-1), ends, 0)


def _present(names: tuple[str, ...], batch: Batch) -> list[str]:
    return [name for name in names if name in batch]


def _power_of_two(number: int) -> int:
    """The smallest power of two that is at least `number`."""
    return 1 << max(int(number) - 1, 0).bit_length()
