"""The trials of a sweep as its study and its run folders have them, while it runs and after."""

from __future__ import annotations

import dataclasses
import json
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from glm_jax.errors import UsageError
from glm_jax.io.paths import is_url, resolve_path
from glm_jax.sweeps.drivers import Drivers
from glm_jax.sweeps.outcomes import read_outcome
from glm_jax.sweeps.run import SWEEP_FILE
from glm_jax.sweeps.storage import open_storage
from glm_jax.sweeps.study import (
    COST,
    MESSAGE,
    NAME,
    RESULT,
    SEED,
    SweepStudy,
    point_of,
    settings_of,
)

STATUS = {
    TrialState.COMPLETE: "done",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "running",
    TrialState.WAITING: "waiting",
}


@dataclasses.dataclass(frozen=True)
class Result:
    """One trial.

    Attributes:
      name: of its run folder.
      point: values of the axes.
      seed: None where the sweep has no seeds.
      settings: what its run had in place of what the sweep's file says.
      status: "done", "pruned", "failed", "running" or "waiting".
      value: of the metric that decides, so far; None if there is none.
      final: the last value of every metric.
      best: the best value of the metric that decides.
      best_step: its step.
      steps: done.
      train_seconds: that they took.
      num_parameters: of the model; None if unknown.
      flops: of the steps that are planned; None if unknown.
      message: how it ended.
      run_folder: where it is.
    """

    name: str
    point: Mapping[str, Any]
    seed: int | None
    settings: Mapping[str, Any]
    status: str
    value: float | None
    final: Mapping[str, float]
    best: float | None
    best_step: int | None
    steps: int
    train_seconds: float
    num_parameters: int | None
    flops: float | None
    message: str
    run_folder: str

    @property
    def differing(self) -> Mapping[str, Any]:
        """What it differs from others in."""
        return self.point if self.seed is None else {**self.point, "seed": self.seed}


@dataclasses.dataclass(frozen=True)
class Results:
    """A sweep, as far as it is done.

    Attributes:
      folder: of the sweep.
      name: of its study.
      command: of its runs.
      metric: that decides, such as "validation/loss".
      goal: "minimize" or "maximize".
      objective: "final" or "best".
      folder_setting: the setting of the run folder.
      num_trials: that there will be.
      trials: the better first; those without a value last.
    """

    folder: str
    name: str
    command: str
    metric: str
    goal: str
    objective: str
    folder_setting: str
    num_trials: int
    trials: Sequence[Result]

    @property
    def num_ended(self) -> int:
        """How many trials have ended, well or not."""
        return sum(trial.status in ("done", "pruned", "failed") for trial in self.trials)

    def order(self, value: float | None) -> float:
        """Sorts values: the better first, none last."""
        if value is None:
            return float("inf")
        return value if self.goal == "minimize" else -value


def read_results(folder: str) -> Results:
    """What a sweep has found so far.

    Args:
      folder: of the sweep; its own, where several drivers share a study.

    Raises:
      UsageError: it is not that of a sweep that was started.
    """
    path = resolve_path(folder, "FOLDER")
    if not (path / SWEEP_FILE).is_file():
        raise UsageError(
            f"{folder} has no {SWEEP_FILE}: it is not the folder of a sweep that was started"
        )
    facts = json.loads((path / SWEEP_FILE).read_text())
    storage = open_storage(facts["storage"], folder)
    study_id = storage.get_study_id_from_name(facts["study"])
    current = SweepStudy(storage, study_id, Drivers(storage, study_id)).current()
    names = ("command", "metric", "goal", "objective", "folder_setting", "num_trials")
    results = Results(
        folder=folder if is_url(folder) else str(path),
        name=facts["study"],
        trials=(),
        **{name: facts[name] for name in names},
    )
    trials = [_result(trial, results) for trial in current.values()]
    trials.sort(key=lambda trial: (results.order(trial.value), trial.name))
    return dataclasses.replace(results, trials=tuple(trials))


def seconds_per_flop(results: Results) -> float | None:
    """The median time that training took for one operation; None before a trial is done."""
    done = [t for t in results.trials if t.status == "done" and t.flops and t.train_seconds]
    rates = [trial.train_seconds / trial.flops for trial in done if trial.flops]
    return statistics.median(rates) if rates else None


def _result(trial: FrozenTrial, results: Results) -> Result:
    """A trial of the study; one that runs is looked up in its run folder."""
    attributes = trial.user_attrs
    run_folder = f"{results.folder}/trials/{attributes[NAME]}"
    outcome = attributes.get(RESULT)
    if outcome is None:
        outcome = read_outcome(run_folder, results.metric, results.goal).as_record()
    cost = attributes.get(COST) or {}
    best = outcome["best"]
    value = best if results.objective == "best" else outcome["final"].get(results.metric)
    failed = trial.state == TrialState.FAIL
    return Result(
        name=attributes[NAME],
        point=point_of(trial),
        seed=attributes.get(SEED),
        settings=settings_of(trial),
        status=STATUS[trial.state],
        value=None if failed else value,
        num_parameters=cost.get("num_parameters"),
        flops=cost.get("flops"),
        message=attributes.get(MESSAGE, ""),
        run_folder=run_folder,
        **outcome,
    )
