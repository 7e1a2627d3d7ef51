"""Recordings that are met exactly or not at all: the blanks of given spans."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tests.data.blanks.recorded_blocks import build_row, recorded, settings_of, special_tokens
from tests.parity.rows import Row

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
