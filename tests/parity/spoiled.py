"""Copies of recordings in which values are changed, which the report must not pass."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.parity.rows import Row

NAN = float("nan")
Change = Callable[[np.ndarray], None]


def last_is_off(array: np.ndarray) -> None:
    """Changes one value by a hundredth of the largest there, or by 1 where it is whole."""
    whole = np.issubdtype(array.dtype, np.integer)
    array.flat[-1] += 1 if whole else max(0.01 * float(np.abs(array).max()), 1e-6)


def last_is_nan(array: np.ndarray) -> None:
    """Python's max() would lose a NaN that doesn't come first."""
    array.flat[-1] = NAN


CHANGES = pytest.mark.parametrize("change", [last_is_off, last_is_nan])


def edit_arrays(path: Path, edit: Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]) -> None:
    with np.load(path) as opened:
        arrays = {name: np.array(array) for name, array in opened.items()}
    np.savez(path, **edit(arrays))  # pyright: ignore[reportArgumentType]


def edit_json(path: Path, edit: Callable[[Any], Any]) -> None:
    value = json.loads(path.read_text())
    edited = edit(value)
    path.write_text(json.dumps(value if edited is None else edited))


def copied(shared: Path, tmp_path: Path, name: str) -> Path:
    """A copy of one folder; its parent stands for all recordings."""
    goldens = tmp_path / "goldens"
    shutil.copytree(shared / "goldens" / name, goldens / name)
    (tmp_path / "vocabs").symlink_to(shared / "vocabs")
    return goldens


def assert_all_fail(rows: Iterator[Row]) -> None:
    found = list(rows)
    assert found
    assert not [row for row in found if row.passed]


def assert_all_pass(rows: Iterator[Row]) -> None:
    found = list(rows)
    assert found
    assert not [row for row in found if not row.passed]
