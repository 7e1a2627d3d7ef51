"""Token ids of a context and an answer -> one row of static length."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from glm_jax.errors import UsageError

Row = dict[str, np.ndarray]


@dataclass(frozen=True)
class Layout:
    """What rows are built for.

    Attributes:
      special: ids by name, of the tokenizer (ENC, MASK, sop, eop, eos, sep).
      sequence_length: L, of every row.
      block_positions: whether Part B counts its block positions (else all are 1).
    """

    special: Mapping[str, int]
    sequence_length: int
    block_positions: bool = True


def context_row(layout: Layout, context: Sequence[int]) -> Row:
    """A row of a context alone.

    `context` starts after ENC and ends before eos; its end is cut where the row is too short.

    Returns:
      tokens [L], position_ids [2, L], prefix_length [].
    """
    special, length = layout.special, layout.sequence_length
    ids = [special["ENC"], *context[: length - 2], special["eos"]]
    positions = np.zeros((2, length), np.int32)
    positions[0, : len(ids)] = np.arange(len(ids))
    return {
        "tokens": padded(ids, length, special["eos"]),
        "position_ids": positions,
        "prefix_length": np.asarray(len(ids), np.int32),
    }


def cloze_row(layout: Layout, context: Sequence[int], answer: Sequence[int] | None) -> Row:
    """A row of a context with a mask, and the answer whose tokens are scored.

    Without an answer, Part B is sop alone, where verbalizers are compared.

    Args:
      layout: of the row.
      context: ids after ENC and before eos; Part B takes the position of its last mask.
      answer: ids, the end of the piece included if it is scored.

    Returns:
      tokens, targets, loss_mask [L], position_ids [2, L], prefix_length [].

    Raises:
      UsageError: the context has no mask, or the row is too short.
    """
    special, length = layout.special, layout.sequence_length
    row = context_row(layout, context)
    start = int(row["prefix_length"])
    prefix = row["tokens"][:start].tolist()
    masks = [index for index, id in enumerate(prefix) if id == special["MASK"]]
    if not masks:
        raise UsageError("a context has no mask token after truncation")
    part_b = [special["sop"], *(answer[:-1] if answer else ())]
    end = start + len(part_b)
    if end > length:
        raise UsageError(f"a row of {length} tokens is too short; {end} are needed")
    row["tokens"][start:end] = part_b
    row["position_ids"][0, start:end] = masks[-1]
    row["position_ids"][1, start:end] = (
        np.arange(1, len(part_b) + 1) if layout.block_positions else 1
    )
    row["targets"] = np.zeros(length, np.int32)
    if answer:
        row["targets"][start:end] = answer
    row["loss_mask"] = np.zeros(length, np.float32)
    row["loss_mask"][start:end] = 1
    return row


def unidirectional_row(layout: Layout, text: Sequence[int], answer: Sequence[int]) -> Row:
    """A row that is predicted from left to right, of which the answer's tokens are scored.

    Part A is ENC and gMASK alone, and all of Part B has the position of gMASK.

    Returns:
      tokens, targets, loss_mask [L], position_ids [2, L], prefix_length [].
    """
    special, length = layout.special, layout.sequence_length
    prefix = [special["ENC"], special["gMASK"]]
    part_b = [special["sop"], *text, *answer[:-1]]
    start, end = len(prefix), len(prefix) + len(part_b)
    scored = slice(end - len(answer), end)
    positions = np.zeros((2, length), np.int32)
    positions[0, 1:end] = 1
    positions[1, start:end] = np.arange(1, len(part_b) + 1) if layout.block_positions else 1
    targets, loss_mask = np.zeros(length, np.int32), np.zeros(length, np.float32)
    targets[scored], loss_mask[scored] = answer, 1
    return {
        "tokens": padded([*prefix, *part_b], length, special["eos"]),
        "position_ids": positions,
        "prefix_length": np.asarray(start, np.int32),
        "targets": targets,
        "loss_mask": loss_mask,
    }


def collate_choices(rows: Sequence[Row], num_choices: int = 0) -> Row:
    """Rows with different numbers of choices -> arrays [B, C, ...].

    Missing choices are filled up with the first one, and `choice_mask` [B, C] is 1 for the others.

    Args:
      rows: of the examples.
      num_choices: C; 0 for that of the example with most choices.
    """
    num_choices = num_choices or max(len(row["tokens"]) for row in rows)
    filled = []
    for row in rows:
        count = len(row["tokens"])
        index = np.concatenate([np.arange(count), np.zeros(num_choices - count, np.int64)])
        choices = {name: array[index] for name, array in row.items() if name != "label"}
        mask = (np.arange(num_choices) < count).astype(np.float32)
        filled.append(choices | {"label": row["label"], "choice_mask": mask})
    return stack(filled)


def padded(ids: Sequence[int], length: int, padding: int) -> np.ndarray:
    """`ids` as an array of `length`, filled up with `padding`."""
    row = np.full(length, padding, np.int32)
    row[: len(ids)] = ids
    return row


def stack(rows: Sequence[Row]) -> Row:
    """Rows of equal shapes -> arrays with a leading axis."""
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}
