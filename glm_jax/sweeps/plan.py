"""All that is known of a sweep before it starts: its trials, each of them validated."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import PurePath

from glm_jax.errors import UsageError
from glm_jax.finetune.config import FinetuneRunConfig
from glm_jax.io.paths import is_url, resolve_path
from glm_jax.parallel.mesh import MESH_AXES
from glm_jax.sweeps.config import SweepConfig
from glm_jax.sweeps.run_kind import AnyConfig, Bound, goal_of, kind_of, metric_of, with_defaults
from glm_jax.sweeps.space import Point, Range, axes_of, grid, random_points
from glm_jax.sweeps.trials import Trial, TrialBuilder

MAX_TRIALS = 100_000
MAX_DRAWS = 10_000  # of a point that the constraints allow
MAX_NAMED = 3  # impossible trials in one message


class Plan:
    """A sweep, ready to start.

    Attributes:
      sweep: its configuration.
      bound: what its file sets for the run, by section and name.
      kind: of its runs.
      folder: where everything goes, as it was given.
      local_folder: where output and compiled programs go: the same, unless it is a URL.
      axes: what varies, seeds excluded.
      builder: makes trials of points.
      metric: that trials are compared by, as TensorBoard names it.
      goal: "minimize" or "maximize".
      objective: which value of the metric counts: "final" or "best".
      trials: those that are known before the start; of a TPE search, none.
      num_excluded: combinations of a grid that the constraints exclude.
    """

    def __init__(self, sweep: SweepConfig, bound: Bound, file: str, num_devices: int | None):
        """Validates a sweep and all of its trials.

        Args:
          sweep: the sweep.
          bound: what its file sets for the run.
          file: its file, which it is named after.
          num_devices: that a trial runs on; None if unknown.

        Raises:
          UsageError: something of it is impossible; the message says which trials.
        """
        self.sweep = sweep
        self.kind = kind_of(bound)
        self.bound = bound = with_defaults(bound, self.kind)
        self.folder = sweep.folder or os.path.join("sweeps", PurePath(file).stem)
        resolve_path(self.folder, "sweep.folder")
        name = PurePath(self.folder).name
        self.local_folder = os.path.join("sweeps", name) if is_url(self.folder) else self.folder
        self.axes = axes_of(sweep)
        self.seeds: tuple[int | None, ...] = sweep.seeds or (None,)
        self.builder = TrialBuilder(sweep, bound, self.kind, self.folder)
        _check_seeds(sweep)
        self.num_excluded = 0
        self._num_devices = num_devices
        points = list(self._points())
        self.trials: tuple[Trial, ...] = self._validated(
            points if sweep.sampler != "tpe" else self._corners(points)
        )
        self.metric = sweep.metric or _common_metric(self.trials)
        self.goal = sweep.goal or goal_of(self.metric)
        self.objective = sweep.objective or self.kind.objective
        if sweep.sampler == "tpe":
            self.trials = ()

    @property
    def num_trials(self) -> int:
        """How many runs there will be."""
        known = len(self.trials)
        return known if self.sweep.sampler != "tpe" else self.sweep.num_points * len(self.seeds)

    def random_point(self, index: int, seed: int) -> Point:
        """A random point that the constraints allow.

        Args:
          index: its number.
          seed: with the number, decides it.

        Raises:
          UsageError: none was found.
        """
        for point in itertools.islice(random_points(self.axes, seed, index), MAX_DRAWS):
            if self.builder.is_allowed(point):
                return point
        raise UsageError(f"sweep.constraints exclude all of {MAX_DRAWS} combinations drawn")

    def trial(self, point: Point, seed: int | None, index: int | None) -> Trial:
        """A trial of a point, validated.

        Raises:
          UsageError: it is impossible.
        """
        trial = self.builder.trial(point, seed, index)
        check_devices(trial, self._num_devices)
        return trial

    def _points(self) -> Iterator[tuple[int | None, Point]]:
        """The points that are known before the start; of a TPE search, its first random ones."""
        sweep = self.sweep
        if sweep.sampler != "grid":
            for index in range(sweep.num_points):
                yield index, self.random_point(index, sweep.sampler_seed)
            return
        size = 1
        for axis in self.axes:
            size *= 1 if isinstance(axis, Range) else len(axis.values)
        if size * len(self.seeds) > MAX_TRIALS:
            raise UsageError(
                f"the sweep has {size * len(self.seeds):,} trials; expected at most {MAX_TRIALS:,}"
            )
        points = list(grid(self.axes))
        allowed = [point for point in points if self.builder.is_allowed(point)]
        self.num_excluded = len(points) - len(allowed)
        if not allowed:
            raise UsageError(f"sweep.constraints exclude all {len(points)} combinations")
        yield from ((None, point) for point in allowed)

    def _corners(self, points: list[tuple[int | None, Point]]) -> list[tuple[int | None, Point]]:
        """Points of which each has one axis at an end: what a search may come to."""
        first = points[0][1]
        found = points[:1]
        for axis in self.axes:
            ends = (axis.low, axis.high) if isinstance(axis, Range) else axis.values
            for end in ends:
                point = {**first, axis.name: end}
                if self.builder.is_allowed(point):
                    found.append((len(found), point))
        return found

    def _validated(self, points: Iterable[tuple[int | None, Point]]) -> tuple[Trial, ...]:
        """The trials of some points.

        Raises:
          UsageError: some are impossible, or two have the same run folder.
        """
        trials, problems = [], []
        for (index, point), seed in itertools.product(points, self.seeds):
            try:
                trials.append(self.trial(point, seed, index))
            except UsageError as error:
                problems.append(str(error))
        if problems:
            _refuse(problems, len(problems) + len(trials))
        _check_folders(trials)
        return tuple(trials)


def check_devices(trial: Trial, num_devices: int | None) -> None:
    """Makes sure that a trial's mesh and batch fit the devices it gets, where these are known.

    Raises:
      UsageError: they don't.
    """
    if num_devices is None:
        return
    config = trial.config
    try:
        shape = config.mesh.shape(num_devices)
    except UsageError as error:
        raise UsageError(f"trial {trial.name}: {error}") from error
    finetuning = isinstance(config, FinetuneRunConfig)
    batch_size = config.finetune.batch_size if finetuning else config.data.batch_size
    num_shards = shape[0] * shape[1] * shape[2]
    if batch_size % num_shards:
        axes = " x ".join(MESH_AXES[:3])
        raise UsageError(
            f"trial {trial.name}: the batch size {batch_size} does not divide over {num_shards} "
            f"shards of the mesh ({axes})"
        )


def missing_inputs(trials: Iterable[Trial]) -> list[str]:
    """What trials read that does not exist, a sentence for each."""
    found: dict[str, None] = {}
    for trial in trials:
        for setting, path in _inputs_of(trial.config).items():
            if path and not _exists(path):
                found[f"{setting} is {path}, which does not exist"] = None
    return list(found)


def _inputs_of(config: AnyConfig) -> dict[str, str]:
    if isinstance(config, FinetuneRunConfig):
        weights = "" if config.finetune.random_weights else config.finetune.initial_weights
        return {"task.data": config.task.data, "finetune.initial_weights": weights}
    stores = {f"the store of data, {store},": store for store in config.data.stores}
    return {
        "data.store": config.data.store,
        **stores,
        "data.supervised": config.data.supervised,
        "train.initial_weights": config.train.initial_weights,
    }


def _exists(path: str) -> bool:
    exists: Callable[[], bool] = resolve_path(path).exists
    return exists()


def _common_metric(trials: Iterable[Trial]) -> str:
    """The metric that every trial is judged by.

    Raises:
      UsageError: they have different ones.
    """
    metrics = sorted({metric_of(trial.config) for trial in trials})
    if len(metrics) > 1:
        raise UsageError(
            f"the trials have different metrics, {' and '.join(metrics)}; set sweep.metric to one "
            "that all of them have"
        )
    return metrics[0]


def _check_seeds(sweep: SweepConfig) -> None:
    """Raises a UsageError where a seed comes twice."""
    for index, seed in enumerate(sweep.seeds):
        if seed in sweep.seeds[:index]:
            raise UsageError(f"sweep.seeds has {seed} twice")


def _check_folders(trials: list[Trial]) -> None:
    """Makes sure that every trial has a run folder and a configuration of its own.

    Raises:
      UsageError: two have the same.
    """
    names: dict[str, Trial] = {}
    settings: dict[str, Trial] = {}
    for trial in trials:
        if trial.name in names:
            raise UsageError(
                f"two trials have the run folder {trial.name}: their values are equal in the "
                "six digits of a name"
            )
        names[trial.name] = trial
        same = settings.setdefault(repr(sorted(trial.settings.items())), trial)
        if same is not trial and trial.seed == same.seed and not trial.name.startswith("p"):
            raise UsageError(f"the trials {same.name} and {trial.name} have the same settings")


def _refuse(problems: list[str], num_trials: int) -> None:
    """Raises one UsageError for all impossible trials."""
    if len(problems) == 1:
        raise UsageError(problems[0])
    shown = "; ".join(problems[:MAX_NAMED])
    more = len(problems) - MAX_NAMED
    raise UsageError(
        f"{len(problems)} of {num_trials} trials are impossible: {shown}"
        + (f"; and {more} more" if more > 0 else "")
    )
