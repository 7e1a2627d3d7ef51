"""Builds examples again from what `goldens/d_blocks/examples` records of them."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from glm_jax.data.blanks import ablations
from glm_jax.data.blanks.build import build_blanks, mask_spans

MASKS = {"bert": "MASK", "gap_sentence": "sMASK", "generation": "gMASK"}
FORM = ("tokens", "targets", "loss_mask", "position_ids", "prefix_length")

Row = Mapping[str, Any]


def settings_of(folder: Path) -> list[str]:
    """The names of all recorded settings; a stand-in where nothing is recorded."""
    return sorted(path.stem for path in (folder / "examples").glob("*.json")) or ["bert"]


def special_tokens(folder: Path, options: Mapping[str, Any]) -> dict[str, int]:
    """The ids of the special tokens that a setting was recorded with."""
    tokenizers = json.loads((folder / "tokenizer.json").read_text())
    kind = "sentinel" if options.get("sentinel_token") else "plain"
    return {name: command["id"] for name, command in tokenizers[kind]["commands"].items()}


def recorded(folder: Path, setting: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The options of a setting, and its cases without those at which the original fails."""
    found = json.loads((folder / "examples" / f"{setting}.json").read_text())
    return found["settings"], [case for case in found["cases"] if "raises" not in case]


def places(row: Row, where: str) -> np.ndarray:
    """Whether each place of a row became dBLOCK in its "context" or its "targets_part"."""
    hidden = np.zeros(len(row["tokens"]), bool)
    hidden[row.get(f"dblock_positions_in_{where}", [])] = True
    return hidden


def build_row(row: Row, options: Mapping[str, Any], special: Mapping[str, int]) -> dict[str, Any]:
    """The arrays of one recorded row from its text and spans."""
    learned = row.get("sample_loss_mask", [])
    sample = {"text": row["sample_tokens"], "loss_mask": learned}
    built = build_samples([(sample, row, 0)], options, special, len(row["tokens"]))
    return {name: built[name][0] for name in FORM}


def build_samples(
    samples: Sequence[tuple[Mapping[str, Any], Row | None, int]],
    options: Mapping[str, Any],
    special: Mapping[str, int],
    sequence_length: int,
) -> dict[str, np.ndarray]:
    """One batch of samples (text and loss mask), their rows, and the recorded `sep` of each.

    A sample without a row took the unidirectional branch: its span is the tail that begins at the
    last place of Part A.
    """
    rows = [row or {"task": "generation", "tokens": []} for _, row, _ in samples]
    spans = [
        row.get("spans_in_block_order", row.get("spans_as_sampled", [[sep - 1, len(x["text"])]]))
        for row, (x, _, sep) in zip(rows, samples, strict=True)
    ]
    lengths = [len(sample["text"]) for sample, _, _ in samples]
    text = padded([sample["text"] for sample, _, _ in samples], max(lengths))
    most = max(map(len, spans))
    boxes = np.array([[*x, *[[0, 0]] * (most - len(x))] for x in spans]).reshape(-1, most, 2)
    count = [len(x) for x in spans]
    tail = np.array([row is None for _, row, _ in samples])
    masks = np.array(
        [special[MASKS.get(x["task"], "") if options.get("task_mask") else "MASK"] for x in rows]
    )
    learned = padded([sample["loss_mask"] for sample, _, _ in samples], max(lengths))
    if {row["task"] for row in rows} == {"masked_lm"}:
        masked = mask_spans(
            text, lengths, boxes, count,
            mask_id=masks[0], sequence_length=sequence_length, text_loss_mask=learned,
        )  # fmt: skip
        return {name: np.asarray(masked[name]) for name in FORM}
    sop: int | list[int] = special["sop"]
    if options.get("sentinel_token"):
        others = [special[f"MASK{i}"] for i in range(1, most)]
        masks = np.array([[mask, *others] for mask in masks])
        sop = [sop, *(special[f"sop{i}"] for i in range(1, most))]
    blanks = build_blanks(
        text, lengths, boxes, count,
        mask_id=masks, sop=sop, eop=special["eop"], sequence_length=sequence_length,
        unidirectional=tail,
        text_loss_mask=learned,
        block_masked=padded([places(row, "targets_part") for row in rows], sequence_length),
        block_mask_id=special["dBLOCK"],
    )  # fmt: skip
    hidden = padded([places(row, "context") for row in rows], sequence_length)
    blanks["tokens"] = tf.where(hidden > 0, special["dBLOCK"], blanks["tokens"])
    first = np.array([row.get("position_bias", 0) for row in rows], np.int32)
    blanks |= ablations.with_positions_from(blanks, tf.constant(first))
    if options.get("sentinel_token"):
        blanks |= ablations.at_one_position(blanks, options["max_seq_length"], tf.constant(tail))
    if not options.get("block_position_encoding", True):
        blanks |= ablations.without_block_positions(blanks)
    return {name: np.asarray(blanks[name]) for name in FORM}


def samples_with_rows(case: Row) -> Iterator[tuple[Mapping[str, Any], Row | None, int]]:
    """The samples of a case beside their rows, and what is recorded as the end of Part A."""
    rows = list(case["built"])  # in the order of the samples, unidirectional ones left out
    samples, ends = case["split"] or case["input"], np.ravel(case["batch"]["attention_mask"])
    for sample, sep in zip(samples, ends, strict=True):
        has_row = bool(rows) and rows[0]["sample_tokens"] == sample["text"]
        yield sample, rows.pop(0) if has_row else None, int(sep)
    assert not rows


def padded(rows: Sequence[Any], width: int) -> np.ndarray:
    """Rows of different lengths with zeros behind them, as int32."""
    array = np.zeros((len(rows), width), np.int32)
    for i, row in enumerate(rows):
        array[i, : len(row)] = row
    return array
