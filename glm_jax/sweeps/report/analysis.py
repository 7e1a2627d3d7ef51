"""What the results of a sweep say about its settings: importance, and laws of scaling."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.stats import spearmanr

from glm_jax.sweeps.report.results import Result, Results

# An axis with more different values than this was drawn from a range.
MAX_LIST = 8


@dataclasses.dataclass(frozen=True)
class PowerLaw:
    """value = factor * size ** exponent, a straight line where both are logarithmic.

    Attributes:
      factor: the value at size 1.
      exponent: negative where larger is lower.
    """

    factor: float
    exponent: float

    def __call__(self, size: Float[np.ndarray, "n"]) -> Float[np.ndarray, "n"]:
        return self.factor * size**self.exponent


def done_trials(results: Results) -> list[Result]:
    """The trials that have ended with a value."""
    return [t for t in results.trials if t.status == "done" and t.value is not None]


def varied_axes(trials: Sequence[Result]) -> list[str]:
    """What the trials differ in, seeds excluded."""
    names = dict.fromkeys(name for trial in trials for name in trial.point)
    return [n for n in names if len({hashable(trial.point.get(n)) for trial in trials}) > 1]


def importances(results: Results) -> dict[str, float]:
    """The share of the variance of the results that each setting explains by itself.

    Of a list it is the variance of the means at its values (eta squared), of a range the squared
    rank correlation. "seed" is what remains between trials that differ in their seeds only. What
    settings explain only together is in none of them.
    """
    trials = done_trials(results)
    values = [trial.value or 0.0 for trial in trials]
    if len(trials) < 3 or statistics.pvariance(values) == 0:
        return {}
    # Where a list has a value for every trial, it explains all and says nothing.
    axes = [n for n in varied_axes(trials) if _is_range(trials, n) or _is_repeated(trials, n)]
    shares = {name: _explained(trials, values, name) for name in axes}
    if any(trial.seed is not None for trial in trials):
        points = [repr(sorted(trial.point.items())) for trial in trials]
        shares["seed"] = 1 - _between(points, values)
    return dict(sorted(shares.items(), key=lambda item: -item[1]))


def _is_range(trials: Sequence[Result], name: str) -> bool:
    found = [trial.point.get(name) for trial in trials]
    numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in found)
    return numbers and len(set(found)) > MAX_LIST


def _is_repeated(trials: Sequence[Result], name: str) -> bool:
    return len({hashable(trial.point.get(name)) for trial in trials}) < len(trials)


def _explained(trials: Sequence[Result], values: Sequence[float], name: str) -> float:
    found = [trial.point.get(name) for trial in trials]
    if _is_range(trials, name):
        correlation = spearmanr(np.array(found, float), np.array(values)).statistic
        return float(np.nan_to_num(correlation) ** 2)
    return _between([hashable(value) for value in found], values)


def _between(labels: Sequence[Hashable], values: Sequence[float]) -> float:
    """The share of a variance that is between groups."""
    groups: dict[Hashable, list[float]] = {}
    for label, value in zip(labels, values, strict=True):
        groups.setdefault(label, []).append(value)
    mean = statistics.fmean(values)
    between = sum(len(of) * (statistics.fmean(of) - mean) ** 2 for of in groups.values())
    return between / (len(values) * statistics.pvariance(values))


def fit_power_law(sizes: Sequence[float], values: Sequence[float]) -> PowerLaw | None:
    """The power law through some points by least squares of logarithms.

    Returns:
      It; None with fewer than three different sizes, or values that are not positive.
    """
    if len(set(sizes)) < 3 or min(*sizes, *values) <= 0:
        return None
    exponent, logarithm = np.polyfit(np.log(sizes), np.log(values), 1)
    return PowerLaw(float(np.exp(logarithm)), float(exponent))


def best_by_size(results: Results, size: str) -> tuple[list[float], list[float]]:
    """The best value at each size.

    Args:
      results: of the sweep.
      size: "num_parameters" or "flops".
    """
    best: dict[float, float] = {}
    for trial in done_trials(results):  # the better first
        number = getattr(trial, size)
        if number is not None and trial.value is not None:
            best.setdefault(float(number), trial.value)
    sizes = sorted(best)
    return sizes, [best[number] for number in sizes]


def hashable(value: Any) -> Hashable:
    """A value of a setting by which trials can be grouped."""
    return value if isinstance(value, Hashable) else repr(value)
