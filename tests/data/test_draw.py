"""An example in the terminal and as a picture."""

import io
import re

import numpy as np
import pytest
from matplotlib.image import imread
from rich.console import Console

from glm_jax.data.draw import draw_example, render_example


class Names:
    """The part of a tokenizer that drawing needs; some pieces would be markup elsewhere."""

    @property
    def special(self) -> dict[str, int]:
        return {"sop": 91, "eop": 92, "MASK": 93}

    def piece(self, id: int) -> str:
        odd = {3: "$x$", 4: "[bold]", 5: "\n", 6: "\u3002", 7: "\x07", 8: ""}
        return {**odd, 91: "<|startofpiece|>", 92: "<|endofpiece|>", 93: "[MASK]"}.get(id, f"w{id}")


@pytest.fixture(scope="module")
def example():
    """Text 2 to 12 with the spans [6, 8] (first block) and [4]; two positions of padding."""
    return {
        "tokens": np.array([2, 3, 93, 5, 93, 9, 10, 11, 12, 91, 6, 7, 8, 91, 4, 0, 0]),
        "targets": np.array([2, 3, 93, 5, 93, 9, 10, 11, 12, 6, 7, 8, 92, 4, 92, 0, 0]),
        "loss_mask": np.array([0.0] * 9 + [1, 0, 1, 1, 1, 1] + [0, 0], np.float32),
        "position_ids": np.array(
            [
                [0, 1, 2, 3, 4, 5, 6, 7, 8, 4, 4, 4, 4, 2, 2, 0, 0],
                [0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4, 1, 2, 0, 0],
            ]
        ),
        "prefix_length": np.int32(9),
        "objective": np.int32(0),
    }


def printed(example, width=80, **settings):
    stream = io.StringIO()
    Console(file=stream, width=width, **settings).print(render_example(example, Names()))
    return stream.getvalue()


def test_terminal_without_colour(example):
    lines = [line.rstrip() for line in printed(example).splitlines()]
    assert lines == [
        "token objective: Part A 9 tokens, Part B 6 in 2 blocks, 5 targets learned, 2",
        "padding",
        "",
        "Part A  positions 0..8, block positions all 0",
        "w2 $x$ [MASK]→2 ↵ [MASK]→1 w9 w10 w11 w12",
        "",
        "Block 1  for the mask at position 4",
        "input           sop 。  · ·",
        "target          。  (·) · eop",
        "position        4   4   4 4",
        "block position  1   2   3 4",
        "",
        "Block 2  for the mask at position 2",
        "input           sop    [bold]",
        "target          [bold] eop",
        "position        2      2",
        "block position  1      2",
    ]


def test_colour_adds_nothing_but_colour(example):
    coloured = printed(example, force_terminal=True, color_system="truecolor")
    assert coloured != printed(example)
    assert re.sub(r"\x1b\[[0-9;]*m", "", coloured) == printed(example)


@pytest.mark.parametrize("width", [40, 80])
def test_long_blocks_continue_below(example, width):
    size = 60
    long = {
        "tokens": np.array([2, 93, *[91, *range(20, 20 + size - 1)]]),
        "targets": np.array([2, 93, *range(20, 20 + size - 1), 92]),
        "loss_mask": np.array([0.0, 0.0] + [1.0] * size, np.float32),
        "position_ids": np.array([[0, 1] + [1] * size, [0, 0, *range(1, size + 1)]]),
        "prefix_length": np.int32(2),
        "objective": np.int32(2),
    }
    lines = printed(long, width).splitlines()
    assert max(map(len, lines)) <= width
    shown = " ".join(line for line in lines if line.startswith("block position ")).split()
    assert [int(word) for word in shown if word.isdigit()] == list(range(1, size + 1))


def test_example_without_blanks():
    """What a text of nothing but tiny documents gives."""
    plain = {
        "tokens": np.array([2, 3, 4]),
        "targets": np.array([2, 3, 4]),
        "loss_mask": np.zeros(3, np.float32),
        "position_ids": np.array([[0, 1, 2], [0, 0, 0]]),
        "prefix_length": np.int32(3),
        "objective": np.int32(1),
    }
    assert "Part B 0 in 0 blocks" in printed(plain)


def test_picture_shows_who_sees_whom(example, tmp_path):
    draw_example(example, Names(), tmp_path / "picture.png")
    pixels = imread(tmp_path / "picture.png")[:, :, :3]
    height, width = pixels.shape[:2]
    # The matrix is 15 cells of 0.17 inches at 160 dots, 1 inch from the left and the top.
    cell = 0.17 * 160
    left = 160

    def cell_colour(row, column):
        bottom = height - (2 * 0.22 + 0.6) * 160
        return pixels[round(bottom - (14.5 - row) * cell), round(left + (column + 0.5) * cell)]

    grey = cell_colour(0, 14)
    assert np.ptp(grey) < 0.01
    for row in range(15):
        for column in range(15):
            seen = column <= row or column < 9
            assert (np.abs(cell_colour(row, column) - grey).max() > 0.1) == seen
    assert np.abs(cell_colour(14, 9) - cell_colour(14, 13)).max() > 0.2  # blocks differ
    assert width < 1000


def test_long_sequences_and_crops_stay_small(make_split, special, sentence_end, tmp_path):
    from glm_jax.data.objectives import BlankConfig
    from glm_jax.data.pipeline import batches

    batch = next(
        batches(
            make_split(2_000, 300, 400), blanks=BlankConfig(), special=special,
            sentence_end=sentence_end, sequence_length=512, batch_size=1, seed=0,
        )
    )  # fmt: skip
    example = {name: values[0] for name, values in batch.items()}
    for name, crop in (("whole.png", None), ("crop.png", 40)):
        draw_example(example, Names(), tmp_path / name, crop=crop)
        height, width = imread(tmp_path / name).shape[:2]
        assert max(height, width) < 2700
    assert imread(tmp_path / "crop.png").shape[0] < imread(tmp_path / "whole.png").shape[0]
