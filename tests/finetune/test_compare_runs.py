"""Runs on one task are compared, with the most frequent label and the deviation over seeds."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from glm_jax.cli.compare_runs import comparison_lines
from glm_jax.errors import UsageError

ONE = {"task": "custom", "step": 3, "accuracy": 61.25, "test": {"accuracy": 60.0}}
SEVERAL = {
    "task": "custom",
    "accuracy": 72.04,
    "test": {"accuracy": 70.0},
    "deviation": {"accuracy": 1.26, "test": {"accuracy": 0.5}},
}


@pytest.fixture
def runs(tiny_task, tmp_path) -> list[str]:
    """A run of one seed and one of several, as far as they are read."""
    shutil.copytree(tiny_task / "data", tmp_path / "data")
    labels = ["good"] * 3 + ["bad"] * 5
    rows = [{"text": "xab", "label": label} for label in labels]
    for split, shown in (("train", rows), ("dev", rows[:4]), ("test", rows[3:])):
        lines = "".join(json.dumps(row) + "\n" for row in shown)
        (tmp_path / f"data/{split}.jsonl").write_text(lines)
    for name, results in (("one", ONE), ("several", SEVERAL)):
        folder = tmp_path / name
        folder.mkdir()
        settings = (tiny_task / "run.gin").read_text()
        (folder / "config.gin").write_text(f"{settings}task.data = '{tmp_path / 'data'}'\n")
        (folder / "results.json").write_text(json.dumps(results))
    return [str(tmp_path / "one"), str(tmp_path / "several")]


def test_scores_stand_in_one_table(runs):
    header, frequent, one, several = comparison_lines(runs)
    assert header.split() == ["accuracy", "in", "percent", "dev", "test"]
    # "bad" in training: one of four in dev, all of test.
    assert frequent.split() == ["most", "frequent", "label", "25.0", "100.0"]
    assert one.split() == [runs[0], "61.2", "60.0"]
    assert several.split(maxsplit=1)[1].split("  ")[0] == "72.0 ± 1.3"
    assert several.endswith("70.0 ± 0.5")
    assert len({len(line) for line in (header, frequent, one, several)}) == 1


def test_a_run_without_results_is_named(runs):
    Path(runs[1], "results.json").unlink()
    with pytest.raises(UsageError, match="several has no results"):
        list(comparison_lines(runs))
