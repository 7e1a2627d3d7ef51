"""An example as the model gets it, for the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, Group, RenderableType
from rich.text import Text

from glm_jax.data.blanks.config import Objective
from glm_jax.data.inspect.parts import Block, TokenNames, find_blocks, readable_pieces, used_length

_BLOCK_STYLES = ("red", "green", "magenta", "yellow", "cyan")


def render_example(example: Mapping[str, np.ndarray], tokenizer: TokenNames) -> RenderableType:
    """One example of a batch, for `rich.console.Console.print`.

    Shows Part A with its masks, numbered by the block of Part B that fills them or, where the
    target is learned in place (masked language model), followed by the target; then each block:
    input, target, the two rows of positions, and the targets without loss in brackets.

    Args:
      example: one row of a batch (contract C1), without the batch axis.
      tokenizer: names the tokens.
    """
    prefix, length = int(example["prefix_length"]), used_length(example)
    blocks = find_blocks(example, tokenizer.special)
    pieces = readable_pieces(example["tokens"][:length], tokenizer)
    targets = readable_pieces(example["targets"][:length], tokenizer)
    learned = int((example["loss_mask"] > 0).sum())
    title = Text.assemble(
        (f"{Objective(int(example['objective'])).label} objective", "bold"),
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
        _part_a_text(pieces[:prefix], targets, example["loss_mask"] > 0, blocks),
    ]
    for number, block in enumerate(blocks):
        indices = range(block.start, block.stop)
        rows = {
            "input": [pieces[i] for i in indices],
            "target": [
                targets[i] if example["loss_mask"][i] > 0 else f"({targets[i]})" for i in indices
            ],
            "position": [str(position[i]) for i in indices],
            "block position": [str(block_position[i]) for i in indices],
        }
        style = _BLOCK_STYLES[number % len(_BLOCK_STYLES)]
        heading = Text.assemble(
            (f"Block {number + 1}", f"bold {style}"),
            f"  for the mask at position {position[block.mask]}",
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


def _part_a_text(
    pieces: Sequence[str],
    targets: Sequence[str],
    learned: Bool[np.ndarray, "L"],
    blocks: Sequence[Block],
) -> Text:
    """Part A as running text; a mask is followed by the number of its block or by its target."""
    number_at = {block.mask: number for number, block in enumerate(blocks)}
    text = Text()
    for index, piece in enumerate(pieces):
        number = number_at.get(index)
        if number is not None:
            style = _BLOCK_STYLES[number % len(_BLOCK_STYLES)]
            text.append(f"{piece}→{number + 1}", style=f"bold reverse {style}")
        elif learned[index]:
            text.append(f"{piece}→{targets[index]}", style=f"bold reverse {_BLOCK_STYLES[0]}")
        else:
            text.append(piece)
        text.append(" ")
    return text


def _runs(values: np.ndarray) -> str:
    """A row of positions in short: "0..88" where it counts up, "0" where it stays the same."""
    if len(values) == 0:
        return "none"
    if np.all(values == values[0]):
        return f"all {values[0]}"
    if np.all(np.diff(values) == 1):
        return f"{values[0]}..{values[-1]}"
    return " ".join(map(str, values))
