"""Sources and targets -> rows of static length.

Source: reference-finetune.md, section 9.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from glm_jax.seq2seq.source import Source
from glm_jax.tasks.sequence import Row, padded


@dataclass(frozen=True)
class RowLayout:
    """What rows are built for.

    Attributes:
      special: ids by name, of the tokenizer (sop, eop, pad).
      source_length: S.
      target_length: T, of Part B.
      pad_source: fills the source up to S before Part B, as the original does; the model then sees
        the padding. Otherwise all padding is at the end, where nothing attends to it.
      block_positions: whether Part B counts its block positions (else all are 1).
    """

    special: Mapping[str, int]
    source_length: int
    target_length: int
    pad_source: bool = False
    block_positions: bool = True


def one_blank_row(layout: RowLayout, source: Source, target: Sequence[int]) -> Row:
    """A row whose target is learnt in the first blank.

    Args:
      layout: of the row.
      source: Part A, S ids at most.
      target: ids without the end of the piece; with it they are shortened to T.

    Returns:
      tokens, targets, loss_mask [S + T], position_ids [2, S + T], prefix_length [].
    """
    special, length = layout.special, layout.target_length
    wanted = [*target, special["eop"]][:length]
    filled = [*wanted, *[special["pad"]] * (length - len(wanted))]
    tokens = [special["sop"], *filled[:-1]]
    blanks, blocks = [source.blanks[0]] * length, list(range(1, length + 1))
    return _row(layout, source, _PartB(tokens, wanted, blanks, blocks))


def blanks_row(layout: RowLayout, source: Source, targets: Sequence[Sequence[int]]) -> Row:
    """A row whose targets are learnt, each in a blank of its own.

    Args:
      layout, source: as for `one_blank_row`.
      targets: ids of each blank's text, without the end of the piece; those of blanks that the
        source lost are left out, and all of them are shortened to T with their ends.

    Returns:
      the arrays of `one_blank_row`.
    """
    special = layout.special
    part_b = _PartB([], [], [], [])
    for blank, target in zip(source.blanks, targets, strict=False):
        ids = [special["sop"], *target]
        part_b.tokens.extend(ids)
        part_b.targets.extend([*target, special["eop"]])
        part_b.blanks.extend([blank] * len(ids))
        part_b.blocks.extend(range(1, len(ids) + 1))
    return _row(layout, source, part_b)


def prompt_row(layout: RowLayout, source: Source) -> Row:
    """A row from which the first token of the first blank is predicted.

    Returns:
      tokens [S + 1], position_ids [2, S + 1], prefix_length [].
    """
    row = one_blank_row(replace(layout, target_length=1), source, ())
    return {name: row[name] for name in ("tokens", "position_ids", "prefix_length")}


class _PartB(NamedTuple):
    """Ids, targets, and the position of each: its blank's, and its own in the blank."""

    tokens: list[int]
    targets: list[int]
    blanks: list[int]
    blocks: list[int]


def _row(layout: RowLayout, source: Source, part_b: _PartB) -> Row:
    """Part A and Part B; what exceeds T is left out."""
    pad = layout.special["pad"]
    ids = list(source.ids)
    if layout.pad_source:
        ids += [pad] * (layout.source_length - len(ids))
    start, total = len(ids), layout.source_length + layout.target_length
    tokens, targets, blanks, blocks = (values[: layout.target_length] for values in part_b)
    end = start + len(tokens)
    position_ids = np.zeros((2, total), np.int32)
    position_ids[0, :end] = [*range(start), *blanks]
    position_ids[1, start:end] = blocks if layout.block_positions else 1
    wanted, loss_mask = np.zeros(total, np.int32), np.zeros(total, np.float32)
    learnt = slice(start, start + len(targets))
    wanted[start:] = pad
    wanted[learnt], loss_mask[learnt] = targets, 1
    return {
        "tokens": padded([*ids, *tokens], total, pad),
        "targets": wanted,
        "loss_mask": loss_mask,
        "position_ids": position_ids,
        "prefix_length": np.asarray(start, np.int32),
    }
