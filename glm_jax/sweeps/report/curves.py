"""The course of each trial: losses by step, by floating-point operations, by time."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

from glm_jax.io.paths import resolve_path
from glm_jax.sweeps.report.results import Result, Results
from glm_jax.train.metrics import read_metrics

SMOOTHING = 0.8  # weight of what came before, in the running mean of training losses


@dataclasses.dataclass(frozen=True)
class Curve:
    """Values of one trial, in order.

    Attributes:
      trial: whose.
      steps: where they were measured.
      seconds: of training until then.
      values: the metric that decides, or where that was measured once only, the training loss.
    """

    trial: Result
    steps: Sequence[int]
    seconds: Sequence[float]
    values: Sequence[float]

    @property
    def flops(self) -> list[float] | None:
        """Operations of training until each value; None if unknown."""
        num_steps = planned_steps(self.trial)
        if self.trial.flops is None or not num_steps:
            return None
        return [self.trial.flops * step / num_steps for step in self.steps]


def read_curves(results: Results) -> tuple[str, list[Curve]]:
    """The curves of all trials whose run folders are here, and what they show.

    Training losses are smoothed, and are shown where an evaluation comes at the end only.
    """
    records = {
        trial.name: list(read_metrics(resolve_path(trial.run_folder) / "metrics.jsonl"))
        for trial in results.trials
    }
    for metric in (results.metric, "train/loss"):
        curves = [_curve(trial, records[trial.name], metric) for trial in results.trials]
        if any(len(curve.steps) > 1 for curve in curves):
            break
    return metric, [curve for curve in curves if curve.steps]


def planned_steps(trial: Result) -> int | None:
    """The last step of a pretraining run, as its configuration has it."""
    file = resolve_path(trial.run_folder) / "config.json"
    if not file.is_file():
        return None
    return json.loads(file.read_text()).get("train", {}).get("num_steps")


def _curve(trial: Result, records: list[dict[str, Any]], metric: str) -> Curve:
    kind, _, name = metric.partition("/")
    steps, seconds, values = [], [], []
    last_step, elapsed, mean = 0, 0.0, None
    for record in records:
        if record["kind"] == "train":
            elapsed += (record["step"] - last_step) * (record.get("step_seconds") or 0.0)
            last_step = record["step"]
        value = record.get(name) if record["kind"] == kind else None
        if value is None:
            continue
        if kind == "train":
            mean = value if mean is None else SMOOTHING * mean + (1 - SMOOTHING) * value
            value = mean
        steps.append(record["step"])
        seconds.append(elapsed)
        values.append(value)
    return Curve(trial, steps, seconds, values)
