"""What a run has reached, from the metrics in its run folder."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from typing import Any

from glm_jax.io.paths import resolve_path
from glm_jax.train.metrics import read_metrics

NO_METRICS = ("step", "kind")


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a run has reached.

    Attributes:
      final: the last value of every metric, as TensorBoard names them.
      best: the best value of the metric that decides; None before the first.
      best_step: its step.
      steps: training steps done, as far as they are logged.
      train_seconds: that its steps took, without compilation, evaluations and saves.
    """

    final: Mapping[str, float]
    best: float | None
    best_step: int | None
    steps: int
    train_seconds: float

    def value(self, metric: str, objective: str) -> float | None:
        """The result of the run: the "final" or the "best" value; None where there is none."""
        return self.best if objective == "best" else self.final.get(metric)

    def as_record(self) -> dict[str, Any]:
        """As plain values."""
        return dataclasses.asdict(self)


def read_outcome(run_folder: str, metric: str, goal: str) -> Outcome:
    """What the run in a folder has reached so far.

    Args:
      run_folder: path or URL.
      metric: that decides, such as "validation/loss".
      goal: "minimize" or "maximize".
    """
    records = list(read_metrics(resolve_path(run_folder) / "metrics.jsonl"))
    final: dict[str, float] = {}
    steps, seconds = 0, 0.0
    for record in records:
        for name, value in record.items():
            if name not in NO_METRICS and _is_finite(value):
                final[f"{record['kind']}/{name}"] = value
        if record["kind"] == "train":
            seconds += (record["step"] - steps) * (record.get("step_seconds") or 0.0)
            steps = record["step"]
    values = dict(_values(records, metric))
    if records and not _is_finite(_last(records, metric)):
        final.pop(metric, None)  # it diverged
    choose = min if goal == "minimize" else max
    best_step = choose(values, key=lambda step: values[step]) if values else None
    best = None if best_step is None else values[best_step]
    return Outcome(final, best, best_step, steps, seconds)


def metric_values(run_folder: str, metric: str) -> dict[int, float]:
    """Every finite value of a metric so far, by its step."""
    return dict(_values(read_metrics(resolve_path(run_folder) / "metrics.jsonl"), metric))


def _values(records, metric: str) -> Iterator[tuple[int, float]]:
    kind, _, name = metric.partition("/")
    for record in records:
        if record["kind"] == kind and _is_finite(record.get(name)):
            yield record["step"], record[name]


def _last(records, metric: str) -> Any:
    """The last value of a metric, finite or not."""
    kind, _, name = metric.partition("/")
    found = [record[name] for record in records if record["kind"] == kind and name in record]
    return found[-1] if found else None


def _is_finite(value: Any) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and math.isfinite(value)
