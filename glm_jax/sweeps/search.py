"""The points of a search, one after another: given, drawn at random, or proposed by TPE."""

from __future__ import annotations

import statistics
import zlib
from collections.abc import Iterator, Mapping

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from glm_jax.sweeps.plan import Plan
from glm_jax.sweeps.space import Axis, Choices, Point
from glm_jax.sweeps.study import SweepStudy, point_of
from glm_jax.sweeps.trials import Trial

NUM_RANDOM_POINTS = 10  # that TPE learns from before it proposes any
MAX_PROPOSALS = 100  # of one point that the constraints allow; then a random one


def distribution_of(axis: Axis) -> BaseDistribution:
    """What Optuna calls an axis."""
    if isinstance(axis, Choices):
        plain = all(v is None or isinstance(v, bool | int | float | str) for v in axis.values)
        return CategoricalDistribution(axis.values if plain else [repr(v) for v in axis.values])
    if axis.is_integer:
        return IntDistribution(int(axis.low), int(axis.high), log=axis.log)
    return FloatDistribution(axis.low, axis.high, log=axis.log)


class Search:
    """The trials of a plan in the order in which they are to be started."""

    def __init__(self, plan: Plan, study: SweepStudy):
        """Args:
        plan: of the sweep.
        study: what is done so far.
        """
        self._plan = plan
        self._study = study
        self.distributions = {axis.name: distribution_of(axis) for axis in plan.axes}

    def trials(self) -> Iterator[Trial]:
        """All trials; a point of a TPE search is drawn when the iterator comes to it."""
        if self._plan.sweep.sampler != "tpe":
            yield from self._plan.trials
            return
        for index in range(self._plan.sweep.num_points):
            point = self._recorded_point(index)
            if point is None:
                trial = self._plan.trial(self._propose(index), self._plan.seeds[0], index)
                self._study.propose(trial, self.distributions)
                point = self._recorded_point(index) or trial.point
            for seed in self._plan.seeds:
                yield self._plan.trial(point, seed, index)

    def known_trials(self) -> list[Trial]:
        """All trials whose points are known, without drawing any."""
        if self._plan.sweep.sampler != "tpe":
            return list(self._plan.trials)
        points = [self._recorded_point(index) for index in range(self._plan.sweep.num_points)]
        return [
            self._plan.trial(point, seed, index)
            for index, point in enumerate(points)
            if point is not None
            for seed in self._plan.seeds
        ]

    def _key(self, index: int, seed: int | None) -> str:
        number = f"p{index:03d}"
        return number if seed is None else f"{number},seed={seed}"

    def _recorded_point(self, index: int) -> Point | None:
        """The point with a number, None where no driver has proposed one."""
        found = self._study.current().get(self._key(index, self._plan.seeds[0]))
        return None if found is None else point_of(found)

    def _propose(self, index: int) -> Point:
        """A new point, which depends on the sampler's seed, its number and the results so far."""
        plan, seed = self._plan, self._plan.sweep.sampler_seed
        known = self._known_points(index)
        if sum(trial.state.is_finished() for trial in known) < NUM_RANDOM_POINTS:
            return plan.random_point(index, seed)
        sampler = optuna.samplers.TPESampler(
            seed=zlib.crc32(f"{seed} {index}".encode()), multivariate=True, n_startup_trials=1
        )
        # A study of its own in memory, where a proposal can be drawn and dropped.
        study = optuna.create_study(sampler=sampler, direction=StudyDirection[plan.goal.upper()])
        study.add_trials(known)
        for _ in range(MAX_PROPOSALS):
            asked = study.ask(dict(self.distributions))
            point = self._as_point(asked.params)
            if plan.builder.is_allowed(point):
                return point
            study.tell(asked, state=TrialState.FAIL)
        return plan.random_point(index, seed)

    def _known_points(self, stop: int) -> list[FrozenTrial]:
        """What is known of the points before a number: one trial each, the mean over its seeds."""
        current = self._study.current()
        found = []
        for index in range(stop):
            trials = [current.get(self._key(index, seed)) for seed in self._plan.seeds]
            trial = self._summary([trial for trial in trials if trial is not None])
            if trial is not None:
                found.append(trial)
        return found

    def _summary(self, trials: list[FrozenTrial]) -> FrozenTrial | None:
        """The trials of one point as one; None where all have failed."""
        if not trials:
            return None
        params = {n: v for n, v in trials[0].params.items() if n in self.distributions}
        if params.keys() != self.distributions.keys():
            return None
        shared = {"params": params, "distributions": dict(self.distributions)}
        values = [t.values[0] for t in trials if t.state == TrialState.COMPLETE and t.values]
        if values:
            return create_trial(value=statistics.fmean(values), **shared)
        for state in (TrialState.PRUNED, TrialState.RUNNING):
            for trial in trials:
                if trial.state == state:
                    steps = trial.intermediate_values
                    return create_trial(state=state, intermediate_values=steps, **shared)
        return None

    def _as_point(self, params: Mapping[str, object]) -> Point:
        """Optuna's values as those of the axes."""
        point = {}
        for axis in self._plan.axes:
            value = params[axis.name]
            if isinstance(axis, Choices):
                value = next(v for v in axis.values if value in (v, repr(v)))
            point[axis.name] = value
        return point
