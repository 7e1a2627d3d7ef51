"""An example as the model gets it: for the terminal, and as a picture like the paper's figure 2."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Protocol

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, Group, RenderableType
from rich.text import Text

from glm_jax.data.objectives import Objective

# Okabe and Ito's colours, which colour-blind readers tell apart: Part A, then the blocks in turn.
_PART_A = "#0072B2"
_BLOCKS = ("#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_TERMINAL_BLOCKS = ("red", "green", "magenta", "yellow", "cyan")
_ALL_LABELS = 80  # longest sequence that gets a label at every token
_CELL = 0.17  # inches of the picture for one token, in a sequence that gets all labels


class TokenNames(Protocol):
    """The part of a tokenizer that names tokens."""

    @property
    def special(self) -> Mapping[str, int]: ...

    def piece(self, id: int) -> str: ...


@dataclass(frozen=True)
class _Block:
    """One blank of Part B: its places in the sequence, and the place of its mask."""

    start: int
    stop: int
    mask: int


def render_example(example: Mapping[str, np.ndarray], tokenizer: TokenNames) -> RenderableType:
    """One example of a batch, for `rich.console.Console.print`.

    Shows Part A with its masks, numbered by the block of Part B that they stand for; then each
    block: input, target, the two rows of positions, and the targets without loss in brackets.

    Args:
      example: one row of a batch (contract C1), without the batch axis.
      tokenizer: names the tokens.
    """
    prefix, length = int(example["prefix_length"]), _used_length(example)
    blocks = _blocks(example)
    pieces = _pieces(example["tokens"][:length], tokenizer)
    learned = int((example["loss_mask"] > 0).sum())
    title = Text.assemble(
        (f"{Objective(int(example['objective'])).name.lower()} objective", "bold"),
        f": Part A {prefix} tokens, Part B {length - prefix} in {len(blocks)} "
        f"{'block' if len(blocks) == 1 else 'blocks'}, {learned} targets learned, "
        f"{len(example['tokens']) - length} padding",
    )
    position, block_position = example["position_ids"]
    parts: list[RenderableType] = [
        title,
        Text(""),
        Text.assemble(
            ("Part A", "bold blue"),
            f"  positions {_runs(position[:prefix])}, "
            f"block positions {_runs(block_position[:prefix])}",
        ),
        _part_a_text(pieces[:prefix], blocks),
    ]
    targets = _pieces(example["targets"][:length], tokenizer)
    for number, block in enumerate(blocks):
        places = range(block.start, block.stop)
        rows = {
            "input": [pieces[i] for i in places],
            "target": [
                targets[i] if example["loss_mask"][i] > 0 else f"({targets[i]})" for i in places
            ],
            "position": [str(position[i]) for i in places],
            "block position": [str(block_position[i]) for i in places],
        }
        style = _TERMINAL_BLOCKS[number % len(_TERMINAL_BLOCKS)]
        heading = Text.assemble(
            (f"Block {number + 1}", f"bold {style}"), f"  for the mask at position {block.mask}"
        )
        parts += [Text(""), heading, _Grid(rows, style)]
    return Group(*parts)


@dataclass(frozen=True)
class _Grid:
    """Rows of equally many cells, aligned, and continued below where the terminal ends."""

    rows: Mapping[str, Sequence[str]]
    style: str

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Text]:
        margin = max(map(len, self.rows)) + 2
        widths = [max(map(cell_len, cells)) + 1 for cells in zip(*self.rows.values(), strict=True)]
        first = 0
        while first < len(widths):
            last, used = first + 1, margin + widths[first]
            while last < len(widths) and used + widths[last] <= options.max_width:
                used += widths[last]
                last += 1
            for name, cells in self.rows.items():
                line = Text(name.ljust(margin), style="dim", no_wrap=True, overflow="ellipsis")
                for cell, width in zip(cells[first:last], widths[first:last], strict=True):
                    padding = " " * (width - cell_len(cell))
                    line.append(cell + padding, style=f"not dim {self.style}")
                yield line
            first = last


def _part_a_text(pieces: Sequence[str], blocks: Sequence[_Block]) -> Text:
    """Part A as running text; every mask is followed by the number of its block."""
    number_at = {block.mask: number for number, block in enumerate(blocks)}
    text = Text()
    for place, piece in enumerate(pieces):
        number = number_at.get(place)
        if number is None:
            text.append(piece)
        else:
            style = _TERMINAL_BLOCKS[number % len(_TERMINAL_BLOCKS)]
            text.append(f"{piece}→{number + 1}", style=f"bold reverse {style}")
        text.append(" ")
    return text


def _used_length(example: Mapping[str, np.ndarray]) -> int:
    """Tokens before the padding, which alone has position 0 after the first token."""
    return int(np.flatnonzero(example["position_ids"].sum(axis=0))[-1]) + 1


def _blocks(example: Mapping[str, np.ndarray]) -> list[_Block]:
    """The blocks of Part B in order: each begins at block position 1."""
    position, block_position = example["position_ids"][:, : _used_length(example)]
    starts = np.flatnonzero(block_position == 1)
    borders = [*map(int, starts), len(position)]
    return [_Block(start, stop, int(position[start])) for start, stop in pairwise(borders)]


def _runs(values: np.ndarray) -> str:
    """A row of positions in short: "0..88" where it counts up, "0" where it stays the same."""
    if len(values) == 0:
        return "none"
    if np.all(values == values[0]):
        return f"all {values[0]}"
    if np.all(np.diff(values) == 1):
        return f"{values[0]}..{values[-1]}"
    return " ".join(map(str, values))


def _pieces(tokens: np.ndarray, tokenizer: TokenNames) -> list[str]:
    """Tokens on one line each, whatever they hold; sop and eop by their short names."""
    names = {tokenizer.special[name]: name for name in ("sop", "eop")}
    return [names.get(token) or _printable(tokenizer.piece(token)) for token in map(int, tokens)]


def _printable(piece: str) -> str:
    piece = piece.replace("\n", "↵")
    return "".join(c if c.isprintable() else "·" for c in piece) or "·"


def draw_example(
    example: Mapping[str, np.ndarray],
    tokenizer: TokenNames,
    path: str | Path,
    *,
    crop: int | None = None,
) -> None:
    """Draws the attention mask, and under it the two rows of positions, as a PNG.

    A row of the matrix is the token that looks, a column the token that is seen, in the colour of
    its part. Masks are labelled in the colour of the block that stands for them.

    Args:
      example: one row of a batch (contract C1), without the batch axis.
      tokenizer: names the tokens.
      path: file to write.
      crop: draw only so many tokens, from the middle of which Part B begins; None draws all. Where
        more than 80 are drawn, only masks and beginnings of blocks are labelled.
    """
    length, prefix = _used_length(example), int(example["prefix_length"])
    first, last = 0, length
    if crop is not None and crop < length:
        first = min(max(prefix - crop // 2, 0), length - crop)
        last = first + crop
    shown = slice(first, last)
    count = last - first
    region, accent, marked = (values[shown] for values in _colours(example))
    labels = _pieces(example["tokens"][shown], tokenizer)

    # All in inches: the matrix, the strips of positions under it, and room for the labels.
    cell = _CELL * min(1.0, _ALL_LABELS / count)
    side, strip, margin = cell * count, 0.22, 1.0
    width, height = side + margin + 0.2, side + margin + 2 * strip + 0.65
    figure = Figure(figsize=(width, height), dpi=160)

    def axes(bottom: float, tall: float) -> Axes:
        return figure.add_axes((margin / width, bottom / height, side / width, tall / height))

    matrix = axes(2 * strip + 0.6, side)
    _draw_matrix(matrix, np.arange(first, last), prefix, region)
    _label_tokens(matrix, labels, accent, _legible(marked, count, 0.085 / cell))
    positions = axes(0.45, 2 * strip)
    _draw_positions(
        positions,
        example["position_ids"][:, shown],
        accent,
        _legible(marked, count, 0.16 / cell),
    )
    objective = Objective(int(example["objective"])).name.lower()
    figure.text(
        margin / width,
        0.17 / height,
        f"{objective} objective: Part A's {prefix} tokens (blue) are seen by all, "
        f"Part B's {length - prefix} by themselves and those after them",
        fontsize=7,
        color="0.35",
    )
    with warnings.catch_warnings():
        # Letters that no installed font has are drawn as boxes; one warning for each helps nobody.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(path, format="png")


def _colours(example: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """By place: the colour of its part, the same with masks coloured as their blocks, and marks.

    Marked are the masks and the beginnings of blocks.
    """
    length = _used_length(example)
    region = np.tile(to_rgb(_PART_A), (length, 1))
    marked = np.zeros(length, bool)
    accent = region.copy()
    for number, block in enumerate(_blocks(example)):
        colour = to_rgb(_BLOCKS[number % len(_BLOCKS)])
        region[block.start : block.stop] = colour
        accent[[block.mask, *range(block.start, block.stop)]] = colour
        marked[[block.mask, block.start]] = True
    return region, accent, marked


def _legible(marked: np.ndarray, count: int, distance: float) -> list[int]:
    """The places to label: all of a short sequence, of a long one the marked ones that fit."""
    if count <= _ALL_LABELS:
        return list(range(count))
    chosen: list[int] = []
    for place in np.flatnonzero(marked):
        if not chosen or place - chosen[-1] >= distance:
            chosen.append(int(place))
    return chosen


def _draw_matrix(axes: Axes, places: np.ndarray, prefix: int, region: np.ndarray) -> None:
    """Who sees whom: a cell has the colour of the part that is seen, or is grey."""
    seen = (places[None, :] <= places[:, None]) | (places[None, :] < prefix)
    in_part_a = places < prefix
    # What Part B sees of Part A is paler than what Part A sees of itself.
    strength = np.where(in_part_a[None, :] & ~in_part_a[:, None], 0.28, 0.6)
    cells = 1 - (1 - region[None, :, :]) * strength[:, :, None]
    cells[~seen] = 0.95
    axes.imshow(cells, interpolation="nearest")
    _draw_grid(axes, len(places), len(places))
    for border in np.flatnonzero(np.diff(in_part_a)) + 0.5:
        axes.axhline(border, color="0.2", linewidth=0.8)
        axes.axvline(border, color="0.2", linewidth=0.8)


def _draw_positions(
    axes: Axes, positions: np.ndarray, accent: np.ndarray, labelled: Sequence[int]
) -> None:
    """The two rows of positions, in the colours of the blocks and of their masks."""
    cells = 1 - (1 - np.stack([accent, accent])) * 0.28
    axes.imshow(cells, interpolation="nearest", aspect="auto")
    _draw_grid(axes, positions.shape[1], 2)
    for row, place in ((row, place) for row in (0, 1) for place in labelled):
        axes.text(
            place, row, str(positions[row, place]),
            ha="center", va="center", fontsize=5, color="0.15",
        )  # fmt: skip
    axes.set_yticks([0, 1], ["position 1", "position 2"], fontsize=6.5)


def _label_tokens(
    axes: Axes, labels: Sequence[str], accent: np.ndarray, labelled: Sequence[int]
) -> None:
    """The tokens along the left and the top side."""
    axes.xaxis.tick_top()
    shortened = [labels[i] if len(labels[i]) <= 16 else labels[i][:15] + "…" for i in labelled]
    axes.set_xticks(labelled, shortened, rotation=90, fontsize=5.5)
    axes.set_yticks(labelled, shortened, fontsize=5.5)
    for tick in (*axes.get_xticklabels(), *axes.get_yticklabels()):
        tick.set_parse_math(False)  # a dollar sign is a dollar sign
    for ticks in (axes.get_xticklabels(), axes.get_yticklabels()):
        for place, tick in zip(labelled, ticks, strict=True):
            tick.set_color(tuple(accent[place] * 0.8))


def _draw_grid(axes: Axes, columns: int, rows: int) -> None:
    """Thin white lines between cells, where the cells are large enough, and no ticks."""
    if columns <= _ALL_LABELS:
        axes.vlines(np.arange(1, columns) - 0.5, -0.5, rows - 0.5, color="white", linewidth=0.5)
        axes.hlines(np.arange(1, rows) - 0.5, -0.5, columns - 0.5, color="white", linewidth=0.5)
    axes.tick_params(length=0, pad=2)
    axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set(color="0.6", linewidth=0.6)
