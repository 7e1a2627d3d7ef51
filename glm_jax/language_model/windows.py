"""Long documents -> overlapping windows, in which every token but the first is scored once.

Source: reference-finetune.md, section 10.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from glm_jax.errors import UsageError
from glm_jax.generate.prompt import mask_ids
from glm_jax.tasks.sequence import Row, padded


@dataclass(frozen=True)
class WindowLayout:
    """How documents are scored.

    Attributes:
      special: ids by name, of the tokenizer.
      sequence_length: L; a window has L - 1 tokens of the document, and its row L + 1.
      stride: tokens from the start of a window to the start of the next.
      unidirectional: whether context is read from left to right; else what earlier windows scored
        is read in both directions.
    """

    special: Mapping[str, int]
    sequence_length: int
    stride: int
    unidirectional: bool = False

    def __post_init__(self) -> None:
        check_stride(self.sequence_length, self.stride)

    @property
    def mask(self) -> int:
        """The mask of long blanks, where the model has one."""
        return self.special.get("gMASK", self.special["MASK"])


def check_stride(sequence_length: int, stride: int) -> None:
    """Makes sure that every token that is scored has a context.

    Raises:
      UsageError: windows start so far apart that one has none.
    """
    if not 1 <= stride <= sequence_length - 2:
        raise UsageError(
            f"the stride is {stride}; windows of {sequence_length - 1} tokens need 1 to "
            f"{sequence_length - 2}, or else tokens would have no context"
        )


def document_rows(
    ids: Sequence[int], layout: WindowLayout, *, scores_first: bool = False
) -> Iterator[Row]:
    """The windows of a document.

    Args:
      ids: of the document; one without a token to score has no windows.
      layout: of the windows.
      scores_first: whether the first token is scored as well, after the mask alone.

    Yields:
      rows as of `part_b_row`, of which `loss_mask` is 1 where a token is scored.
    """
    before_first = 0 if scores_first else 1
    if len(ids) <= before_first:
        return
    size, stride = layout.sequence_length - 1, layout.stride
    for start in range(0, max(len(ids) - size, 0) + stride, stride):
        if start and start + size - stride >= len(ids):
            return
        window = ids[start : start + size]
        scored_before = size - stride if start else before_first
        split = min(scored_before, 1) if layout.unidirectional else scored_before
        yield part_b_row(
            layout.special,
            [*window[:split], layout.mask],
            window[split:],
            len(window) - scored_before,
            layout.sequence_length + 1,
        )


def part_b_row(
    special: Mapping[str, int],
    context: Sequence[int],
    text: Sequence[int],
    num_scored: int,
    length: int,
) -> Row:
    """A row of a context that ends with the mask of its blank, and the text in the blank.

    Args:
      special: ids by name, of the tokenizer.
      context: ids of Part A after its first token, with the mask last but for an eos.
      text: ids of the blank; at least one.
      num_scored: how many of its last ids are scored.
      length: of the row.

    Returns:
      tokens, targets, loss_mask [length], position_ids [2, length], prefix_length [].

    Raises:
      UsageError: the row is too short.
    """
    prefix = [special["ENC"], *context]
    start, end = len(prefix), len(prefix) + len(text)
    if end > length:
        raise UsageError(f"a row of {length} tokens is too short; {end} are needed")
    masks = mask_ids(special)
    position = max(index for index, id in enumerate(prefix) if id in masks)
    position_ids = np.zeros((2, length), np.int32)
    position_ids[0, :end] = [*range(start), *[position] * len(text)]
    position_ids[1, start:end] = np.arange(1, len(text) + 1)
    targets, loss_mask = np.zeros(length, np.int32), np.zeros(length, np.float32)
    targets[start:end] = text
    loss_mask[end - num_scored : end] = 1
    return {
        "tokens": padded([*prefix, special["sop"], *text[:-1]], length, special["eos"]),
        "targets": targets,
        "loss_mask": loss_mask,
        "position_ids": position_ids,
        "prefix_length": np.asarray(start, np.int32),
    }
