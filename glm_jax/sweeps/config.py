"""What a sweep varies, how it searches, and where its trials run: the section `sweep`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from glm_jax import validation
from glm_jax.errors import UsageError

SAMPLERS = ("grid", "random", "tpe")
PRUNERS = ("none", "median", "successive_halving")
BACKENDS = ("local", "slurm", "gke", "tpu_vm")
OBJECTIVES = ("", "final", "best")
GOALS = ("", "minimize", "maximize")
SCALES = ("linear", "log")


@dataclasses.dataclass(frozen=True)
class SweepConfig:
    """The section `sweep` of a gin file; a setting of a run is named "section.name".

    Attributes:
      folder: where everything of the sweep goes; "" for sweeps/<name of the gin file>.
      choices: lists of values by setting, such as {"model.num_layers": (2, 4)}.
      ranges: (low, high) or (low, high, "log") by setting; with two integers, integers are drawn.
        The samplers "random" and "tpe" only.
      variants: by name, settings that change together, such as {"head": {"task.cloze": False}}.
      seeds: every combination is run with each of these.
      seed_settings: settings that a seed is the value of; () for train.seed and data.seed in
        pretraining, finetune.seed in finetuning.
      constraints: formulas that are true for the combinations to try, such as
        "model.hidden_size % model.num_attention_heads == 0".
      formulas: settings that follow from others, in order, such as
        {"train.num_steps": "round(1e15 / flops_per_step)"}.
      sampler: "grid", all combinations; "random"; or "tpe", Optuna's tree-structured Parzen
        estimator.
      num_points: combinations that "random" and "tpe" try; each with every seed.
      sampler_seed: decides what they draw.
      metric: what is compared, as TensorBoard names it; "" for validation/loss, or the first metric
        of the task in finetuning.
      goal: "minimize" or "maximize"; "" for the usual one of the metric.
      objective: the "final" or the "best" value of the metric counts; "" for final in pretraining,
        best in finetuning, whose result is that of the best checkpoint.
      pruner: "none", "median" or "successive_halving": stops trials that do worse than others.
      pruner_settings: of Optuna's pruner, such as {"n_startup_trials": 5}.
      storage: where the state is kept, as Optuna takes it; "" for a journal file in `folder`.
      study: its name in the storage; "" for the name of `folder`.
      backend: where trials run: "local", "slurm", "gke" or "tpu_vm".
      launch: flags of the launch script of the backend, such as {"nodes": 1}.
      parallel: trials that this driver runs at a time.
      devices: numbers of this machine's GPUs or TPU chips that are divided among them; () for all.
      max_restarts: how often a trial is restarted that was killed.
    """

    folder: str = ""
    choices: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    ranges: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    variants: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    seeds: tuple[int, ...] = ()
    seed_settings: tuple[str, ...] = ()
    constraints: tuple[str, ...] = ()
    formulas: Mapping[str, str] = dataclasses.field(default_factory=dict)
    sampler: str = "grid"
    num_points: int = 0
    sampler_seed: int = 0
    metric: str = ""
    goal: str = ""
    objective: str = ""
    pruner: str = "none"
    pruner_settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    storage: str = ""
    study: str = ""
    backend: str = "local"
    launch: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    parallel: int = 1
    devices: tuple[int, ...] = ()
    max_restarts: int = 3

    def __post_init__(self) -> None:
        validation.choice("sweep", self, "sampler", SAMPLERS)
        validation.choice("sweep", self, "pruner", PRUNERS)
        validation.choice("sweep", self, "backend", BACKENDS)
        validation.choice("sweep", self, "objective", OBJECTIVES)
        validation.choice("sweep", self, "goal", GOALS)
        validation.at_least("sweep", self, 1, "parallel")
        validation.at_least("sweep", self, 0, "num_points", "sampler_seed", "max_restarts")
        if self.metric and "/" not in self.metric:
            raise UsageError(
                f"sweep.metric is {self.metric!r}; expected KIND/NAME, such as validation/loss"
            )
        self._check_sampler()
        for name, values in self.choices.items():
            _check_choices(name, values)
        for name, bounds in self.ranges.items():
            _check_range(name, bounds)
        self._check_each_once()

    def _check_sampler(self) -> None:
        if self.sampler == "grid" and self.ranges:
            raise UsageError(
                f"sweep.ranges has {next(iter(self.ranges))}, but sweep.sampler is 'grid'; "
                "expected 'random' or 'tpe', or a list of values in sweep.choices"
            )
        if self.sampler == "grid" and self.num_points:
            raise UsageError(
                f"sweep.num_points is {self.num_points}, but sweep.sampler = 'grid' tries all "
                "combinations; expected 0"
            )
        if self.sampler != "grid" and not self.num_points:
            raise UsageError(
                f"sweep.num_points is 0; sweep.sampler = {self.sampler!r} needs the number of "
                "combinations to try"
            )
        if self.sampler != "grid" and not (self.choices or self.ranges or self.variants):
            raise UsageError(
                f"sweep.sampler is {self.sampler!r}, but sweep.choices, sweep.ranges and "
                "sweep.variants are empty: there is nothing to draw"
            )
        if not (self.choices or self.ranges or self.variants or self.seeds):
            raise UsageError(
                "sweep.choices, sweep.ranges, sweep.variants and sweep.seeds are all empty: there "
                "is nothing to vary"
            )

    def _check_each_once(self) -> None:
        """Makes sure that no setting gets its value from two sources.

        Raises:
          UsageError: one does.
        """
        sources: dict[str, str] = {}
        varied = {name for settings in self.variants.values() for name in settings}
        for source, names in (
            ("sweep.choices", self.choices),
            ("sweep.ranges", self.ranges),
            ("sweep.variants", varied),
            ("sweep.seed_settings", self.seed_settings),
            ("sweep.formulas", self.formulas),
        ):
            for name in names:
                if name in sources:
                    raise UsageError(f"{name} is set by both {sources[name]} and {source}")
                sources[name] = source


def _check_choices(name: str, values: Any) -> None:
    """Raises a UsageError unless `values` is a list of different values."""
    if not isinstance(values, list | tuple):
        raise UsageError(
            f"sweep.choices[{name!r}] is {values!r}, of type {type(values).__name__}; expected a "
            "list of values"
        )
    if not values:
        raise UsageError(f"sweep.choices[{name!r}] is empty; expected at least one value")
    for index, value in enumerate(values):
        if value in values[:index]:
            raise UsageError(f"sweep.choices[{name!r}] has {value!r} twice")


def _check_range(name: str, bounds: Any) -> None:
    """Raises a UsageError unless `bounds` is (low, high) or (low, high, scale)."""
    expected = '(low, high) or (low, high, "log") with low < high'
    is_pair = isinstance(bounds, list | tuple) and len(bounds) in (2, 3)
    if not is_pair or not all(_is_number(bound) for bound in bounds[:2]):
        raise UsageError(f"sweep.ranges[{name!r}] is {bounds!r}; expected {expected}")
    if not bounds[0] < bounds[1]:
        raise UsageError(f"sweep.ranges[{name!r}] is {bounds!r}; expected {expected}")
    if bounds[2:] and bounds[2] not in SCALES:
        raise UsageError(f"sweep.ranges[{name!r}] is {bounds!r}; expected {expected}")
    if bounds[2:] == ("log",) and bounds[0] <= 0:
        raise UsageError(
            f"sweep.ranges[{name!r}] starts at {bounds[0]!r}; a log range needs a positive start"
        )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
