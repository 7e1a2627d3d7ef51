"""Training against the numbers recorded from the original code."""

from __future__ import annotations

import json
import shutil
from collections import defaultdict
from functools import partial

import jax
import numpy as np
import pytest

from glm_jax.train.gradients import gradient_sums, make_loss_function, mean_gradients
from tests.parity.golden_training import LOSS, step_rows, training_rows
from tests.parity.recording import open_recording
from tests.parity.rows import Row, absolute, relative


@pytest.fixture(scope="module")
def rows(shared) -> dict[str, list[Row]]:
    by_golden = defaultdict(list)
    for row in training_rows(shared / "goldens"):
        by_golden[row.golden].append(row)
    return by_golden


def test_every_recorded_quantity_is_met(rows):
    assert [row for found in rows.values() for row in found if not row.passed] == []


def test_every_folder_gave_its_rows(rows, shared):
    for folder in (shared / "goldens/c_training").iterdir():
        found = rows.pop(f"c_training/{folder.name}")
        quantities = [row.quantity for row in found]
        assert len(set(quantities)) == len(quantities)
        assert len(quantities) >= (17 if (folder / "info.json").exists() else 6), quantities
    assert not rows


def test_the_default_accumulation_differs_from_the_original_as_documented(shared):
    """A mean over all targets, which the recorded mean of means isn't; equal without splitting."""
    for file in sorted((shared / "goldens/c_training").glob("*/info.json")):
        recording = open_recording(file.parent, file.parent.name)
        count = recording.accumulation_steps
        loss_of = make_loss_function(recording.model)
        sums = partial(gradient_sums, loss_of, accumulation_steps=count)
        gradients_of = jax.jit(partial(mean_gradients, sums))
        found = gradients_of(recording.params, recording.step_batch(0), jax.random.key(0))
        gap = relative(found.loss, recording.info["steps"][0]["loss"])
        assert (gap <= LOSS) == (count == 1)


def test_a_recording_without_clipping_gives_its_rows(shared, tmp_path):
    """The original says 0 for no clipping, and then records no norms."""
    folder = tmp_path / "no_clipping"
    shutil.copytree(shared / "goldens/c_training/adamw_linear_accum", folder)
    info = json.loads((folder / "info.json").read_text())
    info["config"]["clip"] = 0.0
    for step in info["steps"]:
        step["grad_norms_at_each_clip"] = []
    (folder / "info.json").write_text(json.dumps(info))
    recording = open_recording(folder, "no_clipping")
    assert recording.optimizer.clip_norm == 0
    rows = {row.quantity: row for row in step_rows(recording)}
    assert "norm at every clip (relative)" not in rows
    assert all(np.isfinite(row.difference) for row in rows.values())
    # The recorded steps were clipped, and the report says that these are others.
    assert not rows["every parameter after the last step"].passed


def test_differences_are_measured_so_that_they_can_fail():
    assert absolute([1.0, 2.0], [1.0, 2.5]) == 0.5
    assert relative([1.0, 2.0], [1.0, 2.5]) == pytest.approx(0.2)
    assert relative([0.5], [0.0], smallest=10.0) == pytest.approx(0.05)
    assert relative([0.0], [0.0]) == 0.0
    for measure in (absolute, relative):
        assert not Row("golden", "shape", 1e9, measure(np.zeros(2), np.zeros(3))).passed
        assert not Row("golden", "not a number", 1e9, measure([np.nan], [1.0])).passed
        assert not Row("golden", "not a number", 1e9, measure([1.0], [np.nan])).passed
        assert not Row("golden", "infinite", 1e9, measure([np.inf], [1.0])).passed
    assert not Row("golden", "recorded 0", 1e9, relative([0.1], [0.0])).passed
    assert Row("golden", "equal", 0.0, absolute([1.0], [1.0])).passed
