"""The report on a sweep: tables, statistics over seeds, the best configuration."""

from __future__ import annotations

import csv
import statistics

import pytest

from glm_jax.configure import read_configuration
from glm_jax.errors import UsageError
from glm_jax.sweeps.report.results import read_results
from glm_jax.sweeps.report.statistics import groups_of, interval_of

LINES = (
    "sweep.choices = {'optimizer.learning_rate': (1e-3, 0.1, 5.0)}",
    "sweep.seeds = (1, 2, 3)",
    "sweep.formulas = {'optimizer.decay_steps': 'train.num_steps * 2'}",
)


@pytest.fixture
def folder(write_sweep, drive, tmp_path) -> str:
    """The folder of a sweep of nine trials, three of which have failed."""
    drive(write_sweep(*LINES), parallel=3)
    return str(tmp_path / "sweep")


def test_intervals_are_those_of_students_t():
    # By hand: s = 1, n = 3, the 97.5% quantile with 2 degrees of freedom is 4.302653.
    assert interval_of([1.0, 2.0, 3.0]) == pytest.approx(4.302653 / 3**0.5, rel=1e-6)
    assert interval_of([1.0]) is None


def test_trials_and_groups_are_ordered_by_the_metric(folder):
    results = read_results(folder)
    assert (results.num_trials, results.num_ended) == (9, 9)
    assert [t.status for t in results.trials] == ["done"] * 6 + ["failed"] * 3
    values = [t.value for t in results.trials if t.value is not None]
    assert values == sorted(values) and len(values) == 6
    assert results.trials[0].name == "learning_rate=0.001,seed=1"
    best, second, failed = groups_of(results)
    assert best.point == {"optimizer.learning_rate": 1e-3}
    of_best = [t.value for t in results.trials if t.point == best.point and t.value is not None]
    assert best.mean == pytest.approx(statistics.fmean(of_best))
    assert best.num_values == 3 and best.interval is not None
    assert second.mean is not None and best.mean is not None and best.mean < second.mean
    assert failed.mean is None and failed.num_values == 0


def test_the_report_is_printed_and_written(folder, run_here, tmp_path):
    done = run_here(["sweep", "report", folder])
    assert done.returncode == 0, done.stderr
    assert "9 of 9 trials started (6 done, 3 failed); minimize the final validation/loss" in (
        done.stdout
    )
    assert "3 of 3" in done.stdout and "step 1: loss nan" in done.stdout
    written = tmp_path / "sweep" / "report"
    rows = list(csv.DictReader((written / "trials.csv").read_text().splitlines()))
    assert len(rows) == 9
    assert rows[0]["optimizer.decay_steps"] == "12"
    assert float(rows[0]["validation/loss"]) == float(rows[0]["value"])
    markdown = (written / "report.md").read_text()
    assert "| learning_rate | validation/loss | 95% interval | seeds done |" in markdown
    assert sum(path.is_dir() for path in (written / "tensorboard").iterdir()) == 6


def test_the_best_configuration_is_a_run_of_its_own(folder, run_here, tmp_path):
    run_here(["sweep", "report", folder])
    file = tmp_path / "sweep" / "report" / "best.gin"
    assert file.read_text().startswith("# The best of 3 configurations of the sweep sweep:")
    config = read_configuration([file])
    assert config.optimizer.learning_rate == 1e-3
    assert config.optimizer.decay_steps == 12
    assert config.train.seed == 1
    assert config.train.run_folder == "runs/sweep_best"


def test_a_running_sweep_is_reported_as_far_as_it_is(folder, run_here, tmp_path):
    done = run_here(["sweep", "report", folder, "--watch"])
    assert done.returncode == 0 and "6 done" in done.stdout


def test_another_folder_is_refused(tmp_path, run_here):
    with pytest.raises(UsageError, match="it is not the folder of a sweep that was started"):
        read_results(str(tmp_path))
    assert run_here(["sweep", "report", tmp_path]).returncode == 2
