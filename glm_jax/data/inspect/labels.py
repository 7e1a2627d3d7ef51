"""The labels of a picture: the tokens along two sides, and outside of them the two parts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path

PART_A = "#0072B2"
_FONT_SIZE = 5.5


def shortened(label: str) -> str:
    """A label of at most 16 letters."""
    return label if len(label) <= 16 else label[:15] + "…"


def max_label_inches(labels: Iterable[str]) -> float:
    """Length in inches of the longest label."""
    font = FontProperties(size=_FONT_SIZE)
    sizes = (text_to_path.get_text_width_height_descent(x, font, ismath=False) for x in labels)
    return max((width for width, _, _ in sizes), default=0) / 72


def label_tokens(axes: Axes, labels: Mapping[int, str], colours: Float[np.ndarray, "L 3"]) -> None:
    """Writes tokens along the left and the top side.

    Args:
      axes: of the matrix.
      labels: by index in the sequence.
      colours: of all indices.
    """
    axes.xaxis.tick_top()
    axes.set_xticks(list(labels), list(labels.values()), rotation=90, fontsize=_FONT_SIZE)
    axes.set_yticks(list(labels), list(labels.values()), fontsize=_FONT_SIZE)
    for ticks in (axes.get_xticklabels(), axes.get_yticklabels()):
        for index, tick in zip(labels, ticks, strict=True):
            tick.set_parse_math(False)  # a dollar sign is a dollar sign
            tick.set_color(tuple(colours[index] * 0.8))


def label_parts(axes: Axes, indices: range, prefix: int, away: float) -> None:
    """Marks Part A and Part B by lines along the left and the top side.

    Args:
      axes: of the matrix.
      indices: what is drawn of the sequence.
      prefix: where Part B starts.
      away: distance of the lines from the matrix, as a fraction of its side.
    """
    border = min(max(prefix, indices.start), indices.stop)
    parts = {"Part A": range(indices.start, border), "Part B": range(border, indices.stop)}
    for (name, part), colour in zip(parts.items(), (PART_A, "0.3"), strict=True):
        if not part:
            continue
        ends, middle = (part.start - 0.3, part.stop - 0.7), (part.start + part.stop - 1) / 2
        top, left = axes.get_xaxis_transform(), axes.get_yaxis_transform()
        line = {"color": colour, "linewidth": 1.2, "clip_on": False, "solid_capstyle": "butt"}
        text = {"color": colour, "fontsize": 8, "fontweight": "bold", "textcoords": "offset points"}
        axes.plot(ends, [1 + away] * 2, transform=top, **line)
        axes.plot([-away] * 2, ends, transform=left, **line)
        axes.annotate(
            name, (middle, 1 + away), (0, 3), xycoords=top, ha="center", va="bottom", **text
        )
        axes.annotate(
            name, (-away, middle), (-3, 0), xycoords=left, ha="right", va="center", rotation=90,
            **text,
        )  # fmt: skip
