"""A sweep of real runs: killed at random moments, its results are those of undisturbed runs."""

from __future__ import annotations

import io
import json
import os
import random
import signal
import time
from pathlib import Path

import pytest
from rich.console import Console

from glm_jax.configure import read_configuration
from glm_jax.io.processes import is_running
from glm_jax.sweeps.report.results import read_results
from glm_jax.sweeps.storage import open_storage
from glm_jax.sweeps.study import JOB
from glm_jax.train.metrics import read_metrics
from glm_jax.train.pretrain import pretrain
from tests.finetune.conftest import SETTINGS, write_examples
from tests.serve.tiny_checkpoint import write_checkpoint
from tests.train.test_pretrain import assert_same_params

SWEEP = (
    "sweep.choices = {'optimizer.learning_rate': (1e-3, 3e-3, 1e-2), "
    "'optimizer.beta2': (0.9, 0.95, 0.99)}",
    "sweep.seeds = (1, 2)",
    "sweep.parallel = 2",
    "sweep.max_restarts = 10",
    "model.num_layers = 1",
    "model.hidden_dropout = 0.1",
    "evaluation.every = 2",
    "evaluation.num_batches = 1",
    "checkpoint.every = 2",
)
NUM_KILLS = 10
# What depends on when a step was done, and not on what it computed.
TIMES = ("seconds", "step_seconds", "tokens_per_second", "data_wait")


def running_processes(folder: Path) -> list[int]:
    """The processes that the trials of a sweep run as."""
    if not (folder / "study.journal").is_file():
        return []
    storage = open_storage("", str(folder))
    if folder.name not in [study.study_name for study in storage.get_all_studies()]:
        return []  # the driver has not written it yet
    trials = storage.get_all_trials(storage.get_study_id_from_name(folder.name))
    jobs = [t.user_attrs[JOB] for t in trials if t.state.name == "RUNNING" and JOB in t.user_attrs]
    return [job["process"] for job in jobs if is_running(job["process"], job["started"])]


def results(run_folder: Path) -> list[dict]:
    """The metrics of a run, without times."""
    records = [r for r in read_metrics(run_folder / "metrics.jsonl") if r["kind"] != "save"]
    return [{n: v for n, v in record.items() if n not in TIMES} for record in records]


@pytest.mark.slow
def test_a_sweep_killed_at_random_moments_equals_undisturbed_runs(
    write_sweep, start_command, tmp_path
):
    file = write_sweep(*SWEEP)
    folder = tmp_path / "sweep"
    chance = random.Random(1)
    driver = start_command(["sweep", "run", file])
    kills, deadline = [], time.monotonic()
    while len(kills) < NUM_KILLS and driver.poll() is None:
        time.sleep(0.2)
        processes = running_processes(folder)
        if not processes or time.monotonic() < deadline:
            continue
        kinds = ("trial", "driver", "both")
        kills.append(kinds[len(kills) % 3])
        if kills[-1] != "driver":
            os.kill(chance.choice(processes), signal.SIGKILL)
        if kills[-1] != "trial":
            driver.kill()
            driver.communicate()
            driver = start_command(["sweep", "run", file])
        deadline = time.monotonic() + chance.uniform(2, 15)
    output, errors = driver.communicate(timeout=3600)
    assert driver.returncode == 0, errors
    assert len(kills) == NUM_KILLS
    folders = sorted((folder / "trials").iterdir())
    assert len(folders) == 18
    for trial in folders:
        undisturbed = tmp_path / "undisturbed" / trial.name
        bindings = [f"train.run_folder={undisturbed}"]
        config = read_configuration([trial / "config.gin"], bindings)
        pretrain(config, Console(file=io.StringIO()))
        assert results(trial) == results(undisturbed), trial.name
        assert_same_params(read_configuration([trial / "config.gin"]), config)
        steps = [r["step"] for r in results(trial) if r["kind"] == "train"]
        assert steps == list(range(1, 7)), trial.name
    again = start_command(["sweep", "run", file])
    output, errors = again.communicate(timeout=600)
    assert again.returncode == 0 and "started" not in output, errors
    assert json.loads((folder / "sweep.json").read_text())["goal"] == "minimize"


@pytest.mark.slow
def test_a_sweep_of_finetuning(run_command, tmp_path):
    data = write_examples(tmp_path / "data")
    checkpoint = write_checkpoint(tmp_path / "checkpoint")
    file = tmp_path / "tasks.gin"
    paths = f"task.data = '{data}'\nfinetune.initial_weights = '{checkpoint}'\n"
    sweep = (
        f"finetune.run_folder = 'unused'\nsweep.folder = '{tmp_path}/sweep'\n"
        "sweep.choices = {'optimizer.learning_rate': (1e-5, 3e-3)}\n"
    )
    file.write_text(SETTINGS + paths + sweep)
    done = run_command(["sweep", "run", file])
    assert done.returncode == 0, done.stderr
    results = read_results(str(tmp_path / "sweep"))
    assert (results.metric, results.goal) == ("validation/accuracy", "maximize")
    assert [trial.name for trial in results.trials] == [
        "learning_rate=0.003",
        "learning_rate=1e-05",
    ]
    for trial in results.trials:
        written = json.loads((Path(trial.run_folder) / "results.json").read_text())
        assert trial.value == pytest.approx(written["accuracy"])
        assert trial.status == "done" and trial.best_step == written["step"]
