"""A sweep as processes: all its trials, once each, whatever is killed."""

from __future__ import annotations

import pytest

THREE_BY_TWO = (
    "sweep.choices = {'optimizer.learning_rate': (1e-3, 1e-2), 'train.num_steps': (2, 4)}",
    "sweep.seeds = (1, 2)",
)


@pytest.mark.slow
def test_a_sweep_runs_all_trials_and_does_nothing_when_repeated(write_sweep, run_command, tmp_path):
    file = write_sweep(*THREE_BY_TWO)
    done = run_command(["sweep", "run", file])
    print(done.stdout, done.stderr)
    assert done.returncode == 0
    folders = sorted(path.name for path in (tmp_path / "sweep" / "trials").iterdir())
    assert len(folders) == 8
    again = run_command(["sweep", "run", file])
    assert again.returncode == 0 and "started" not in again.stdout
    print(again.stdout)
