"""The driver, with a stand-in for the runs: every trial once, whatever fails or is killed."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest

from glm_jax.sweeps.run import study_name
from glm_jax.sweeps.storage import open_storage
from glm_jax.sweeps.study import KEY, RESULT
from tests.sweeps.traces import starts, steps_of

GRID = "sweep.choices = {'optimizer.learning_rate': (1e-3, 1e-2, 2e-2), 'train.num_steps': (4, 6)}"
SEEDS = "sweep.seeds = (1, 2)"
NAMES = {
    f"learning_rate={rate},num_steps={steps},seed={seed}"
    for rate in ("0.001", "0.01", "0.02")
    for steps in (4, 6)
    for seed in (1, 2)
}


def trials_of(folder: Path, storage: str = "", study: str = "") -> list:
    opened = open_storage(storage, str(folder))
    found = opened.get_all_trials(opened.get_study_id_from_name(study or folder.name))
    return [trial for trial in found if KEY in trial.user_attrs]


def test_every_trial_runs_once_and_is_recorded(write_sweep, drive, tmp_path):
    file = write_sweep(GRID, SEEDS)
    lines = drive(file)
    folder = tmp_path / "sweep"
    assert sorted(starts(folder)) == sorted((name, 0) for name in NAMES)
    trials = trials_of(folder)
    assert {t.user_attrs["name"] for t in trials} == NAMES
    assert {t.state.name for t in trials} == {"COMPLETE"}
    by_name = {t.user_attrs["name"]: t for t in trials}
    best = by_name["learning_rate=0.01,num_steps=6,seed=1"]
    assert best.values == [pytest.approx(1 / 6 + 1e-3)]
    assert best.params == {"optimizer.learning_rate": 0.01, "train.num_steps": 6}
    assert best.user_attrs[RESULT]["steps"] == 6
    assert sum(line.startswith("finished") for line in lines) == 12
    assert any("(12 of 12)" in line for line in lines)


def test_a_finished_sweep_starts_nothing_and_a_larger_one_only_what_is_new(
    write_sweep, drive, tmp_path
):
    drive(write_sweep("sweep.seeds = (1, 2)"))
    assert drive(write_sweep("sweep.seeds = (1, 2)")) == []
    drive(write_sweep("sweep.seeds = (1, 2, 3)"))
    # The first two run side by side.
    found = sorted(starts(tmp_path / "sweep"))
    assert found == [("seed=1", 0), ("seed=2", 0), ("seed=3", 0)]


def test_a_failed_trial_is_recorded_and_stops_no_other(write_sweep, drive, tmp_path):
    rates = "sweep.choices = {'optimizer.learning_rate': (1e-3, 5.0, 1e-2)}"
    lines = drive(write_sweep(rates), parallel=1)
    message = "step 1: loss nan; update skipped"
    assert lines[-1] == f"failed: 1 of 3 trials failed: learning_rate=5: {message}"
    assert sum(line.startswith("finished") for line in lines) == 2
    assert drive(write_sweep(rates)) == [lines[-1]]
    assert len(starts(tmp_path / "sweep")) == 3
    drive(write_sweep(rates), retry_failed=True)
    assert starts(tmp_path / "sweep")[3:] == [("learning_rate=5", 0)]


def test_another_run_in_the_same_folder_is_refused(write_sweep, drive):
    drive(write_sweep("sweep.seeds = (1,)"))
    with pytest.raises(Exception, match=r"optimizer.beta1 is 0.8, but the study sweep was started"):
        drive(write_sweep("sweep.seeds = (1,)", "optimizer.beta1 = 0.8"))


def test_a_trial_that_is_killed_too_often_fails(write_sweep, tmp_path, start_driver):
    file = write_sweep("sweep.seeds = (1,)", "sweep.max_restarts = 1", "train.num_steps = 100")
    driver = start_driver(file)
    folder = tmp_path / "sweep" / "trials" / "seed=1"
    for num_steps in (2, 6):
        wait_for(lambda: running_trials(tmp_path / "sweep"), driver)
        wait_for(lambda least=num_steps: len(steps_of(folder)) >= least, driver)
        os.kill(running_trials(tmp_path / "sweep")[0], signal.SIGKILL)
    output, _ = driver.communicate(timeout=60)
    assert driver.returncode == 1
    assert "restarting seed=1, which was killed by signal 9" in output
    assert "seed=1: it was killed by signal 9 2 times" in output
    steps = steps_of(folder)
    assert steps == list(range(1, len(steps) + 1))


def running_trials(folder: Path) -> list[int]:
    """Numbers of the processes that run a trial of a sweep."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                arguments = (entry / "cmdline").read_bytes().decode().split("\0")
            except OSError:
                continue
            if "stand_in.py" in " ".join(arguments[:4]) and f"{folder}/" in " ".join(arguments):
                found.append(int(entry.name))
    return found


def wait_for(condition, driver: subprocess.Popen[str], seconds: float = 120) -> None:
    """Waits until a condition was true once, or the driver has ended."""
    deadline = time.monotonic() + seconds
    while not condition() and driver.poll() is None:
        assert time.monotonic() < deadline, "nothing happens"
        time.sleep(0.02)


@pytest.mark.slow
def test_killed_at_random_moments_every_step_is_done_once(write_sweep, start_driver, tmp_path):
    file = write_sweep(GRID, SEEDS, "sweep.parallel = 3", "sweep.max_restarts = 10")
    folder = tmp_path / "sweep"
    chance = random.Random(7)
    kills = {"driver": 0, "trial": 0, "both": 0}
    driver = start_driver(file)
    outputs = []
    while driver.poll() is None and sum(kills.values()) < 10:
        wait_for(lambda: running_trials(folder) != [], driver)
        time.sleep(chance.uniform(0, 0.5))
        trials = running_trials(folder)
        if driver.poll() is not None or not trials:
            continue
        kind = ("driver", "trial", "both")[sum(kills.values()) % 3]
        kills[kind] += 1
        if kind != "driver":
            os.kill(chance.choice(trials), signal.SIGKILL)
        if kind != "trial":
            driver.kill()
            outputs.append(driver.communicate()[0])
            driver = start_driver(file)
    outputs.append(driver.communicate(timeout=120)[0])
    assert driver.returncode == 0, outputs
    assert sum(kills.values()) >= 6, kills
    current = [t for t in trials_of(folder) if t.state.name == "COMPLETE"]
    assert sorted(t.user_attrs["name"] for t in current) == sorted(NAMES)
    for name in NAMES:
        num_steps = 4 if "num_steps=4" in name else 6
        assert steps_of(folder / "trials" / name) == list(range(1, num_steps + 1)), name
    resumed = [step for _, step in starts(folder) if step]
    assert resumed, "no trial was killed halfway"


def test_sigterm_saves_and_another_driver_continues(write_sweep, start_driver, tmp_path):
    file = write_sweep("sweep.seeds = (1, 2)", "sweep.parallel = 2", "train.num_steps = 20")
    folder = tmp_path / "sweep"
    driver = start_driver(file)
    wait_for(lambda: all(len(steps_of(f)) > 2 for f in (folder / "trials").glob("seed*")), driver)
    wait_for(lambda: len(running_trials(folder)) == 2, driver)
    driver.terminate()
    output, _ = driver.communicate(timeout=60)
    assert driver.returncode == 0, output
    assert "the same command continues the sweep" in output
    assert running_trials(folder) == []
    output, _ = start_driver(file).communicate(timeout=120)
    assert "(2 of 2)" in output
    for seed in (1, 2):
        assert steps_of(folder / "trials" / f"seed={seed}") == list(range(1, 21))


@pytest.mark.parametrize("kind", ["journal", pytest.param("sqlite", marks=pytest.mark.slow)])
def test_two_drivers_share_the_trials(write_sweep, start_driver, tmp_path, kind):
    shared = tmp_path / "shared"
    shared.mkdir()
    storage = {"journal": f"{shared}/state.journal", "sqlite": f"sqlite:///{shared}/state.db"}[kind]
    file = write_sweep(GRID, SEEDS, f"sweep.storage = {storage!r}", "sweep.study = 'both'")
    folders = [tmp_path / "one", tmp_path / "two"]
    drivers = [start_driver(file, f"sweep.folder={folder}") for folder in folders]
    outputs = [driver.communicate(timeout=240)[0] for driver in drivers]
    assert [driver.returncode for driver in drivers] == [0, 0], outputs
    names = [name for folder in folders for name, _ in starts(folder)]
    assert sorted(names) == sorted(NAMES)
    assert all(starts(folder) for folder in folders)
    states = [t.state.name for t in trials_of(folders[0], storage, "both")]
    assert states.count("COMPLETE") == len(NAMES)
    assert set(states) <= {"COMPLETE", "FAIL"}  # proposed by both at the same moment


def test_tpe_draws_points_that_the_constraints_allow(write_sweep, drive, tmp_path):
    file = write_sweep(
        "sweep.ranges = {'optimizer.learning_rate': (1e-4, 1e-1, 'log')}",
        "sweep.choices = {'train.num_steps': (2, 3)}",
        "sweep.sampler = 'tpe'",
        "sweep.num_points = 14",
        "sweep.seeds = (1, 2)",
        "sweep.constraints = ('optimizer.learning_rate < 0.05',)",
    )
    drive(file, parallel=4)
    trials = trials_of(tmp_path / "sweep")
    assert len(trials) == 28 == len({t.user_attrs[KEY] for t in trials})
    rates = {t.user_attrs[KEY]: t.params["optimizer.learning_rate"] for t in trials}
    assert max(rates.values()) < 0.05
    assert len(set(rates.values())) == 14
    assert all(rates[f"p{i:03d},seed=1"] == rates[f"p{i:03d},seed=2"] for i in range(14))
    assert drive(file) == []


@pytest.mark.slow
def test_pruning_stops_bad_trials(write_sweep, drive, tmp_path, monkeypatch):
    monkeypatch.setenv("STAND_IN_STEP_SECONDS", "0.5")
    file = write_sweep(
        "sweep.choices = {'optimizer.learning_rate': (1e-2, 1.1e-2, 0.9)}",
        "sweep.pruner = 'median'",
        "sweep.pruner_settings = {'n_startup_trials': 2}",
        "train.num_steps = 12",
    )
    lines = drive(file, parallel=1)
    states = {t.user_attrs["name"]: t.state.name for t in trials_of(tmp_path / "sweep")}
    assert states["learning_rate=0.9"] == "PRUNED", lines
    assert states["learning_rate=0.01"] == "COMPLETE"
    assert len(steps_of(tmp_path / "sweep" / "trials" / "learning_rate=0.9")) < 12
    assert drive(file) == []


def test_the_study_is_named_after_the_folder(make_plan):
    assert study_name(make_plan("sweep.seeds = (1,)")) == "sweep"
    assert study_name(make_plan("sweep.seeds = (1,)", "sweep.study = 'mine'")) == "mine"


def test_what_the_report_needs_is_written(write_sweep, drive, tmp_path):
    drive(write_sweep("sweep.seeds = (1,)"))
    facts = json.loads((tmp_path / "sweep" / "sweep.json").read_text())
    assert (facts["metric"], facts["goal"]) == ("validation/loss", "minimize")
