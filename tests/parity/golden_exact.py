"""Recordings that are met exactly or not at all: blanks of given spans, and greedy filling."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from glm_jax.generate.greedy import Prompt, fill_prompts
from tests.data.recorded_blocks import build_row, recorded, settings_of, special_tokens
from tests.parity.golden_forward import Load
from tests.parity.rows import Row
from tests.parity.test_generation import recorded_form

BATCH = ("tokens", "targets", "loss_mask", "position_ids")


def block_rows(goldens: Path) -> Iterator[Row]:
    """How many recorded rows of every setting come out different."""
    folder = goldens / "d_blocks"
    for setting in settings_of(folder):
        options, cases = recorded(folder, setting)
        special = special_tokens(folder, options)
        rows = [row for case in cases for row in case["built"]]
        different = sum(_differs(row, build_row(row, options, special)) for row in rows)
        if rows:
            yield Row(f"d_blocks/{setting}", f"rows that differ, of {len(rows)}", 0.0, different)


def _differs(row: Mapping[str, Any], built: Mapping[str, Any]) -> bool:
    """Recorded positions may have their first row only: the second is 0 then."""
    positions = np.asarray(row["position_ids"])
    if positions.ndim == 1:
        positions = np.stack([positions, np.zeros_like(positions)])
    expected = {**row, "position_ids": positions}
    same = all(np.array_equal(built[name], expected[name]) for name in BATCH)
    return not same or int(built["prefix_length"]) != row["sep"]


def generation_rows(goldens: Path, load: Load) -> Iterator[Row]:
    """How many recorded prompts are filled differently, greedily."""
    folder = goldens / "g_generation"
    config = json.loads((folder / "config.json").read_text())
    commands = json.loads((folder / "tokenizer.json").read_text())["commands"]
    special = {name: command["id"] for name, command in commands.items()}
    cases = json.loads((folder / "generate_samples.json").read_text())
    cases = [case for case in cases if case["num_beams"] == 1]
    model, params = load(folder / "ckpt", config["num_attention_heads"])
    (limit,) = {case["out_seq_length"] for case in cases}
    filled = fill_prompts(
        model,
        params,
        [
            Prompt(case["context"], [done["mask_position"] for done in case["per_mask"]])
            for case in cases
        ],
        begin=special["sop"],
        ends=(special["eop"], special["eos"]),
        max_blank_length=limit,
    )
    different = sum(
        recorded_form(blanks, special) != case["generated"]
        for case, blanks in zip(cases, filled, strict=True)
    )
    quantity = f"greedily filled prompts that differ, of {len(cases)}"
    yield Row("g_generation/generate_samples", quantity, 0.0, different)
