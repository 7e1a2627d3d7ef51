"""The two rows of positions of a picture: as numbers, or where those do not fit as lines."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from glm_jax.data.inspect.parts import Block


def draw_numbers(
    axes: Axes,
    positions: Int[np.ndarray, "2 L"],
    colours: Float[np.ndarray, "L 3"],
    indices: range,
) -> None:
    """Two rows of numbered cells.

    Args:
      axes: cells are drawn one apart, from -0.5 down, at the x of their indices.
      positions: index in the text and index inside the block, of the complete sequence.
      colours: of the cells.
      indices: what to draw of the sequence.
    """
    shown = positions[:, indices.start : indices.stop]
    pale = 1 - (1 - colours[indices.start : indices.stop]) * 0.28
    extent = (indices.start - 0.5, indices.stop - 0.5, 1.5, -0.5)
    axes.imshow(np.stack([pale, pale]), extent=extent, interpolation="nearest", aspect="auto")
    upright = shown.max(axis=1) <= 99  # three digits are wider than a cell
    for (row, column), value in np.ndenumerate(shown):
        axes.text(
            indices[column], row, str(value),
            ha="center", va="center", fontsize=5, color="0.15", rotation=0 if upright[row] else 90,
        )  # fmt: skip
    axes.set_yticks([0, 1], ["position", "block position"], fontsize=6.5)


def draw_lines(
    rows: tuple[Axes, Axes],
    positions: Int[np.ndarray, "2 L"],
    colours: Float[np.ndarray, "L 3"],
    blocks: Sequence[Block],
    indices: range,
) -> None:
    """Two stepped lines, Part A and every block in its colour.

    In the first row a dot at every mask, and a dotted line from it to its block, show that the
    complete block has the position of its mask.

    Args:
      rows: axes for the index in the text and the index inside the block.
      positions: the two, of the complete sequence.
      colours: of the parts, by index.
      blocks: of Part B, which starts with the first of them.
      indices: what to draw of the sequence.
    """
    length = positions.shape[1]
    prefix = blocks[0].start if blocks else length
    parts = [(0, prefix), *((block.start, block.stop) for block in blocks)]
    for axes, values, name in zip(rows, positions, ("position", "block\nposition"), strict=True):
        for start, stop in parts:
            edges = np.arange(start, stop + 1) - 0.5
            colour = tuple(colours[start])
            axes.stairs(values[start:stop], edges, fill=True, color=colour, alpha=0.22)
            axes.stairs(values[start:stop], edges, baseline=None, color=colour, linewidth=1.1)
        axes.set_xlim(indices.start - 0.5, indices.stop - 0.5)
        axes.set_ylim(0, 1.12 * max(1, values[indices.start : indices.stop].max()))
        axes.set_ylabel(name, rotation=0, ha="right", va="center", fontsize=7)
        axes.yaxis.set_label_coords(-0.03, 0.5)
        axes.yaxis.set_major_locator(MaxNLocator(nbins=3, integer=True))
        axes.tick_params(length=2, pad=2, labelsize=6, width=0.6, color="0.6", labelcolor="0.3")
        axes.grid(axis="y", color="0.9", linewidth=0.5)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set(color="0.6", linewidth=0.6)
    for block in blocks:
        colour = tuple(colours[block.start])
        height = positions[0, block.start]
        line = {"color": colour, "linestyles": ":", "linewidth": 0.6, "alpha": 0.8}
        rows[0].hlines(height, block.mask, block.start, **line)
        if block.mask in indices:
            rows[0].plot(block.mask, height, "o", color=colour, markersize=2.5, clip_on=False)
    rows[0].tick_params(labelbottom=False)
    rows[1].set_xlabel("index in the input", fontsize=7, labelpad=2)
