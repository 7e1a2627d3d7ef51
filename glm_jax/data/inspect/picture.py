"""An example as the model gets it, as a picture like the paper's figure 2."""

from __future__ import annotations

import io
import os
import textwrap
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from glm_jax.data.blanks.config import Objective
from glm_jax.data.inspect.labels import (
    PART_A,
    label_parts,
    label_tokens,
    max_label_inches,
    shortened,
)
from glm_jax.data.inspect.parts import Block, TokenNames, find_blocks, readable_pieces, used_length
from glm_jax.data.inspect.positions import draw_lines, draw_numbers
from glm_jax.io.files import write_file

# Okabe and Ito's colours, which colour-blind readers can distinguish; blocks cycle through them.
_BLOCKS = ("#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_ALL_LABELS = 80  # longest sequence that gets a label at every token
_DOTS_PER_INCH = 160

# Inches of the picture.
_MAX_WIDTH = 9.9
_CELL = 0.17  # one token, in sequences that fit so
_RIGHT = 0.2
_LABEL_LINE = 0.066  # from one label of a token to the next
_NUMBERS, _LINE, _GAP = 0.44, 0.6, 0.1  # positions: the cells together, one plot, and between
_TICKS = 0.3  # numbers and name of the axis under the plots


@dataclass(frozen=True)
class _Scene:
    """What is drawn: some indices of a sequence, and the colours of all of it.

    `region` has by index the colour of its part; in `accent` the masks have that of their blocks.
    """

    indices: range
    prefix: int
    length: int
    blocks: Sequence[Block]
    region: np.ndarray
    accent: np.ndarray

    @property
    def all_labels(self) -> bool:
        return len(self.indices) <= _ALL_LABELS


def draw_example(
    example: Mapping[str, np.ndarray],
    tokenizer: TokenNames,
    path: str | os.PathLike[str],
    *,
    crop: int | None = None,
) -> None:
    """Writes `example_figure` as a PNG."""
    content = io.BytesIO()
    with warnings.catch_warnings():
        # Letters that no installed font has are drawn as boxes; one warning for each helps nobody.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        example_figure(example, tokenizer, crop=crop).savefig(content, format="png")
    write_file(path, content.getvalue())


def example_figure(
    example: Mapping[str, np.ndarray], tokenizer: TokenNames, *, crop: int | None = None
) -> Figure:
    """The attention mask, and under it the two rows of positions.

    A row of the matrix is the token that looks, a column the token that is seen, in the colour of
    its part. Masks are labelled in the colour of the block that fills them.

    Args:
      example: one row of a batch (contract C1), without the batch axis.
      tokenizer: names the tokens.
      crop: number of tokens to draw, around the start of Part B; None draws all. Where
        more than 80 are drawn, only masks and starts of blocks are labelled, and the positions
        are lines instead of numbers.
    """
    scene = _arrange(example, tokenizer, crop)
    pieces = readable_pieces(example["tokens"], tokenizer)
    labels = {i: shortened(pieces[i]) for i in _labelled(scene)}
    around = 0.1 + max_label_inches(labels.values())
    left, top = max(around + 0.3, 0.95), around + 0.35
    side = min(_CELL * len(scene.indices), _MAX_WIDTH - left - _RIGHT)
    caption = textwrap.wrap(_caption(example, scene), max(30, int(19 * (left + side))))
    foot = 0.2 + 0.13 * len(caption) + (0 if scene.all_labels else _TICKS)
    under = foot + _GAP + (_NUMBERS if scene.all_labels else 2 * _LINE + _GAP)
    width, height = left + side + _RIGHT, under + side + top
    figure = Figure(figsize=(width, height), dpi=_DOTS_PER_INCH)

    def axes(bottom: float, tall: float) -> Axes:
        return figure.add_axes((left / width, bottom / height, side / width, tall / height))

    matrix = axes(under, side)
    _draw_matrix(matrix, scene)
    label_tokens(matrix, labels, scene.accent)
    label_parts(matrix, scene.indices, scene.prefix, around / side)
    positions = example["position_ids"][:, : scene.length]
    if scene.all_labels:
        numbers = axes(foot, _NUMBERS)
        draw_numbers(numbers, positions, scene.accent, scene.indices)
        numbers.set_xticks([])
        _draw_grid(numbers, scene.indices, range(2))
    else:
        rows = axes(foot + _LINE + _GAP, _LINE), axes(foot, _LINE)
        draw_lines(rows, positions, scene.region, scene.blocks, scene.indices)
    figure.text(0.12 / width, 0.1 / height, "\n".join(caption), fontsize=7, color="0.35")
    return figure


def _arrange(example: Mapping[str, np.ndarray], tokenizer: TokenNames, crop: int | None) -> _Scene:
    length, prefix = used_length(example), int(example["prefix_length"])
    first, count = 0, length
    if crop is not None and crop < length:
        first, count = min(max(prefix - crop // 2, 0), length - crop), crop
    region = np.tile(to_rgb(PART_A), (length, 1))
    accent = region.copy()
    blocks = find_blocks(example, tokenizer.special)
    for number, block in enumerate(blocks):
        colour = to_rgb(_BLOCKS[number % len(_BLOCKS)])
        region[block.start : block.stop] = colour
        accent[[block.mask, *range(block.start, block.stop)]] = colour
    return _Scene(range(first, first + count), prefix, length, blocks, region, accent)


def _caption(example: Mapping[str, np.ndarray], scene: _Scene) -> str:
    objective = Objective(int(example["objective"])).label
    return (
        f"{objective} objective. Rows attend to columns; grey is not seen. "
        f"All see Part A's {scene.prefix} tokens; "
        f"Part B's {scene.length - scene.prefix} are seen by themselves and those after them."
    )


def _labelled(scene: _Scene) -> list[int]:
    """The indices to label: all of a short sequence, of a long one the marked ones that fit."""
    if scene.all_labels:
        return list(scene.indices)
    distance = _LABEL_LINE * len(scene.indices) / (_MAX_WIDTH - 1.2)
    chosen: list[int] = []
    for index in sorted({index for block in scene.blocks for index in (block.mask, block.start)}):
        if index in scene.indices and (not chosen or index - chosen[-1] >= distance):
            chosen.append(index)
    return chosen


def _draw_matrix(axes: Axes, scene: _Scene) -> None:
    """Who sees whom: a cell has the colour of the part that is seen, or is grey."""
    indices = np.array(scene.indices)
    in_part_a = indices < scene.prefix
    seen = (indices[None, :] <= indices[:, None]) | in_part_a[None, :]
    # What Part B sees of Part A is paler than what Part A sees of itself.
    strength = np.where(in_part_a[None, :] & ~in_part_a[:, None], 0.28, 0.6)
    cells = 1 - (1 - scene.region[None, indices, :]) * strength[:, :, None]
    cells[~seen] = 0.95
    first, last = indices[0] - 0.5, indices[-1] + 0.5
    axes.imshow(cells, interpolation="nearest", extent=(first, last, last, first))
    _draw_grid(axes, scene.indices, scene.indices)
    if first < scene.prefix - 0.5 < last:
        axes.axhline(scene.prefix - 0.5, color="0.2", linewidth=0.8)
        axes.axvline(scene.prefix - 0.5, color="0.2", linewidth=0.8)


def _draw_grid(axes: Axes, columns: range, rows: range) -> None:
    """Thin white lines between cells, where the cells are large enough, and no marks at ticks."""
    if len(columns) <= _ALL_LABELS:
        line = {"color": "white", "linewidth": 0.5}
        axes.vlines(np.array(columns[1:]) - 0.5, rows.start - 0.5, rows.stop - 0.5, **line)
        axes.hlines(np.array(rows[1:]) - 0.5, columns.start - 0.5, columns.stop - 0.5, **line)
    axes.tick_params(length=0, pad=2)
    for spine in axes.spines.values():
        spine.set(color="0.6", linewidth=0.6)
