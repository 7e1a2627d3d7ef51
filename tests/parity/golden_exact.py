"""Recordings that are met exactly or not at all: blanks of given spans, batches and samples."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from glm_jax.data.blanks.ablations import shorten_texts
from tests.data.blanks.recorded_blocks import (
    build_row,
    build_samples,
    recorded,
    samples_with_rows,
    settings_of,
    special_tokens,
)
from tests.data.order.recorded_items import RECORDED_CASE, draw_texts, read_items
from tests.parity.rows import Row, guarded

BUILT = ("tokens", "targets", "loss_mask", "position_ids")
# Our names of a batch's arrays, and the recorded ones.
BATCH = {
    "tokens": "text",
    "targets": "target",
    "loss_mask": "loss_mask",
    "position_ids": "position_id",
    "prefix_length": "attention_mask",
}
FAILING = {"gpt_mixed_1d"}  # the original fails on all of its cases
SENTENCE_ENDS = range(10, 24)  # ids of the recordings' tokens that end a sentence
NUM_DRAWS = 20_000  # so many that a piece which can be drawn is: one of some 4,000


def block_rows(goldens: Path) -> Iterator[Row]:
    """How many recorded rows, batches and split samples of every setting come out different."""
    folder = goldens / "d_blocks"
    for setting in settings_of(folder):
        if setting not in FAILING:
            golden = f"d_blocks/{setting}"
            yield from guarded(golden, partial(_setting_rows, folder, setting, golden))


def _setting_rows(folder: Path, setting: str, golden: str) -> Iterator[Row]:
    options, cases = recorded(folder, setting)
    special = special_tokens(folder, options)
    split = [case for case in cases if case["split"]]
    if split:
        pieces = sum(len(case["split"]) for case in split)
        different = sum(foreign_pieces(case, options, special) for case in split)
        yield Row(golden, f"split samples that can't be drawn, of {pieces}", 0.0, different)
    rows = [row for case in cases for row in case["built"]]
    if rows:
        different = sum(_row_differs(row, options, special) for row in rows)
        yield Row(golden, f"rows that differ, of {len(rows)}", 0.0, different)
    different = sum(_batch_differs(case, options, special) for case in cases)
    tails = sum(row is None for case in cases for _, row, _ in samples_with_rows(case))
    quantity = f"batches that differ, of {len(cases)}"
    if tails:
        quantity += f" with {tails} unidirectional samples"
    yield Row(golden, quantity, 0.0, different if cases else float("inf"))


def _row_differs(
    row: Mapping[str, Any], options: Mapping[str, Any], special: Mapping[str, int]
) -> bool:
    built = build_row(row, options, special)
    same = all(_equal(built[name], row[name], name) for name in BUILT)
    return not same or int(built["prefix_length"]) != row["sep"]


def _batch_differs(
    case: Mapping[str, Any], options: Mapping[str, Any], special: Mapping[str, int]
) -> bool:
    """Samples of different lengths and kinds, padded; the unidirectional ones among them."""
    batch = case["batch"]
    samples = list(samples_with_rows(case))
    built = build_samples(samples, options, special, np.shape(batch["text"])[-1])
    return not all(_equal(built[ours], batch[theirs], ours) for ours, theirs in BATCH.items())


def _equal(built: np.ndarray, recorded: Sequence, name: str) -> bool:
    """Recorded positions may have their first row only: the second is 0 then."""
    expected = np.asarray(recorded)
    if name == "position_ids" and expected.ndim < built.ndim:
        expected = np.stack([expected, np.zeros_like(expected)], axis=-2)
    return np.array_equal(built, expected)


def foreign_pieces(
    case: Mapping[str, Any], options: Mapping[str, Any], special: Mapping[str, int]
) -> int:
    """How many of the samples that a case was split into are none that ours can be shortened to.

    Where a piece starts with a document, the original keeps the document's ENC behind the piece's;
    ours has one.
    """
    enc = special["ENC"]
    drawn: set[tuple[int, ...]] = set()
    for sample in case["input"]:
        text = np.array(sample["text"], np.int32)
        drawn.add(tuple(text.tolist()))  # shorter than the piece that was to be drawn
        rows = tf.range(NUM_DRAWS, dtype=tf.int64)
        pieces, lengths = shorten_texts(
            tf.constant(np.tile(text, (NUM_DRAWS, 1))), tf.fill([NUM_DRAWS], len(text)), rows,
            probability=1.0, special=special, sentence_end=np.isin(np.arange(1024), SENTENCE_ENDS),
            sequence_length=options["max_seq_length"], seed=0,
        )  # fmt: skip
        shown = np.arange(len(text)) < lengths.numpy()[:, None]
        for row in {row.tobytes() for row in np.where(shown, pieces.numpy(), -1)}:
            piece = np.frombuffer(row, np.int32)
            drawn.add(tuple(piece[piece >= 0].tolist()))
    texts = [tuple(sample["text"]) for sample in case["split"]]
    return sum((text[1:] if text[:2] == (enc, enc) else text) not in drawn for text in texts)


def item_rows(goldens: Path) -> Iterator[Row]:
    """The recorded items of the original's data set, among the texts drawn from its documents."""

    def rows() -> Iterator[Row]:
        path = goldens / "d_blocks" / "block_dataset.json"
        special = special_tokens(path.parent, {})
        found = set(draw_texts(json.loads(path.read_text()), special))
        items = read_items(json.loads(path.read_text()))
        missing = sum(item not in found for item in items)
        yield Row(
            "d_blocks/block_dataset",
            f"items that can't be drawn, of {len(items)} ({RECORDED_CASE})",
            0.0,
            missing if items else float("inf"),
        )

    yield from guarded("d_blocks/block_dataset", rows)
