"""Means and confidence intervals over the seeds of a configuration."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from scipy.stats import t as student

from glm_jax.sweeps.report.results import Result, Results

CONFIDENCE = 0.95


@dataclasses.dataclass(frozen=True)
class Group:
    """The trials of one configuration, which differ in their seeds only.

    Attributes:
      point: what the configuration differs from others in.
      trials: with all seeds.
      num_values: how many of them are done.
      mean: of their values; None if none is done.
      interval: half the width of the confidence interval of the mean; None for a single value.
    """

    point: Mapping[str, Any]
    trials: Sequence[Result]
    num_values: int
    mean: float | None
    interval: float | None


def groups_of(results: Results) -> list[Group]:
    """The configurations of a sweep, the better first."""
    by_point: dict[str, list[Result]] = {}
    for trial in results.trials:
        by_point.setdefault(repr(sorted(trial.point.items())), []).append(trial)
    groups = [_group(trials) for trials in by_point.values()]
    return sorted(groups, key=lambda group: results.order(group.mean))


def _group(trials: list[Result]) -> Group:
    values = [t.value for t in trials if t.status == "done" and t.value is not None]
    mean = statistics.fmean(values) if values else None
    return Group(trials[0].point, trials, len(values), mean, interval_of(values))


def interval_of(values: Sequence[float]) -> float | None:
    """Half the width of the 95% confidence interval of the mean of normally distributed values.

    Student's t distribution: with two values it is 12.7 standard errors, with three 4.3.
    """
    if len(values) < 2:
        return None
    error = statistics.stdev(values) / math.sqrt(len(values))
    return float(student.ppf((1 + CONFIDENCE) / 2, len(values) - 1)) * error
