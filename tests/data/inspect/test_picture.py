"""An example in the terminal and as a picture."""

import io
import re

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.image import imread
from rich.console import Console

from glm_jax.data.inspect.picture import draw_example, example_figure
from glm_jax.data.inspect.terminal import render_example

# The fonts at hand may lack a letter of the examples.
pytestmark = pytest.mark.filterwarnings("ignore:Glyph")


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


def painted(figure):
    """The colour at a point of an axes' data, as the picture has it."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    pixels = np.asarray(canvas.buffer_rgba())[:, :, :3] / 255

    def colour(axes, x, y):
        column, row = axes.transData.transform((x, y))
        return pixels[int(len(pixels) - row), int(column)]

    return colour


def written(axes):
    """The texts and labels of the axes that are not empty."""
    ticks = [*axes.get_xticklabels(), *axes.get_yticklabels()]
    return [text.get_text() for text in (*axes.texts, *ticks) if text.get_text()]


@pytest.mark.parametrize("crop", [None, 12])
def test_picture_shows_who_sees_whom(example, crop):
    figure = example_figure(example, Names(), crop=crop)
    matrix, first = figure.axes[0], 0 if crop is None else 3
    colour = painted(figure)
    grey = colour(matrix, 14, first)
    assert np.ptp(grey) < 0.01
    for row in range(first, 15):
        for column in range(first, 15):
            seen = column <= row or column < 9
            # Beside the middle of the cell, as a line is drawn between cells only.
            assert (np.abs(colour(matrix, column + 0.1, row + 0.1) - grey).max() > 0.1) == seen
    assert np.abs(colour(matrix, 9, 14) - colour(matrix, 13, 14)).max() > 0.2  # blocks differ


def test_short_sequences_have_all_numbers_and_tokens(example):
    matrix, numbers = example_figure(example, Names()).axes
    expected = [str(value) for value in example["position_ids"][:, :15].ravel()]
    assert written(numbers) == [*expected, "position", "block position"]
    tokens = ["w2", "$x$", "[MASK]", "↵", "[MASK]", "w9", "w10", "w11", "w12"]
    tokens += ["sop", "。", "·", "·", "sop", "[bold]"]
    assert written(matrix) == ["Part A", "Part A", "Part B", "Part B", *tokens, *tokens]


def test_example_without_blanks_has_no_part_b():
    plain = {
        "tokens": np.array([2, 3, 4]),
        "position_ids": np.array([[0, 1, 2], [0, 0, 0]]),
        "prefix_length": np.int32(3),
        "objective": np.int32(1),
    }
    matrix, _ = example_figure(plain, Names()).axes
    assert "Part A" in written(matrix)
    assert "Part B" not in written(matrix)


@pytest.fixture(scope="module")
def long_example():
    """Text 0 to 299 with the spans [280, 282), [40, 50) and [60, 63), in this order."""
    spans = {280: 2, 40: 10, 60: 3}
    text = [*range(40), 93, *range(50, 60), 93, *range(63, 280), 93, *range(282, 300)]
    masks = {start: text.index(start - 1) + 1 for start in spans}
    part_b = [token for start, size in spans.items() for token in [91, *range(start, start + size)]]
    position = [masks[start] for start, size in spans.items() for _ in range(size + 1)]
    block_position = [1 + i for size in spans.values() for i in range(size + 1)]
    return {
        "tokens": np.array(text + part_b) % 100,
        "position_ids": np.array(
            [[*range(len(text)), *position], [0] * len(text) + block_position]
        ),
        "prefix_length": np.int32(len(text)),
        "objective": np.int32(0),
    }


def test_long_sequences_have_positions_as_lines(long_example):
    figure = example_figure(long_example, Names())
    matrix, *rows = figure.axes
    length = len(long_example["tokens"])
    for axes, values in zip(rows, long_example["position_ids"], strict=True):
        assert axes.get_xlim() == matrix.get_xlim() == (-0.5, length - 0.5)
        drawn = np.full(length, -1.0)
        for line in axes.patches:
            heights, edges, _ = line.get_data()
            drawn[round(edges[0] + 0.5) : round(edges[-1] + 0.5)] = heights
        np.testing.assert_array_equal(drawn, values)
    assert [axes.get_ylabel() for axes in rows] == ["position", "block\nposition"]
    # Under its line a block has its own colour, not Part A's.
    colour, start = painted(figure), int(long_example["prefix_length"])
    assert np.abs(colour(rows[0], start + 1, 20) - colour(rows[0], 150, 20)).max() > 0.1


def test_long_sequences_label_parts_masks_and_blocks(long_example):
    labels = written(example_figure(long_example, Names()).axes[0])
    assert labels.count("Part A") == labels.count("Part B") == 2
    assert labels.count("[MASK]") == 2 * 3
    assert 2 <= labels.count("sop") <= 2 * 3
    assert len(labels) < 20


@pytest.mark.parametrize("crop", [None, 81, 80, 40])
def test_pictures_are_written_and_stay_small(long_example, crop, tmp_path):
    draw_example(long_example, Names(), tmp_path / "picture.png", crop=crop)
    height, width = imread(tmp_path / "picture.png").shape[:2]
    assert 500 < width <= 1600
    assert 500 < height <= 2000
