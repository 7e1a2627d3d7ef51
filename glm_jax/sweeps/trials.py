"""From a point of the search space to an ordinary run: settings, formulas, configuration."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from glm_jax.errors import UsageError
from glm_jax.model.config import GLMConfig
from glm_jax.sweeps.config import SweepConfig
from glm_jax.sweeps.costs import Cost, cost_of, flops_per_step, num_parameters
from glm_jax.sweeps.formulas import evaluate_formula
from glm_jax.sweeps.naming import trial_name
from glm_jax.sweeps.run_kind import AnyConfig, Bound, RunKind
from glm_jax.sweeps.space import VARIANT, Point
from glm_jax.typed_values import build_configuration, build_section

SEED = "seed"
# What formulas may name apart from settings; of pretraining runs.
QUANTITIES = ("flops_per_step", "num_parameters")


@dataclasses.dataclass(frozen=True)
class Trial:
    """One run of a sweep.

    Attributes:
      key: identifies it among all drivers: its name, or the number of its point and its seed.
      name: of its run folder: what differs.
      point: values of the axes.
      seed: None where the sweep has no seeds.
      settings: all that its run has in place of what the sweep's file says.
      config: of its run.
      cost: what it takes, None where that is not known.
    """

    key: str
    name: str
    point: Point
    seed: int | None
    settings: Mapping[str, Any]
    config: AnyConfig
    cost: Cost | None

    @property
    def differing(self) -> Mapping[str, Any]:
        """What it differs from others in, for people."""
        return self.point if self.seed is None else {**self.point, SEED: self.seed}


class TrialBuilder:
    """Makes trials of points."""

    def __init__(self, sweep: SweepConfig, bound: Bound, kind: RunKind, folder: str):
        """Checks every name that the sweep has.

        Args:
          sweep: the sweep.
          bound: what its file sets for the run, by section and name.
          kind: of the run.
          folder: of the sweep.

        Raises:
          UsageError: a setting that does not exist, or that the sweep sets itself.
        """
        self._sweep = sweep
        self._bound = bound
        self._kind = kind
        self._folder = folder
        self._seed_settings = sweep.seed_settings or kind.seed_settings
        self._check_names()

    def settings(self, point: Point, seed: int | None) -> dict[str, Any]:
        """What the run of a point has in place of what the sweep's file says, formulas included.

        Raises:
          UsageError: a formula fails.
        """
        values = {name: value for name, value in point.items() if name != VARIANT}
        settings = {**self._sweep.variants.get(point.get(VARIANT, ""), {}), **values}
        if seed is not None:
            settings |= dict.fromkeys(self._seed_settings, seed)
        for setting, formula in self._sweep.formulas.items():
            where = f"sweep.formulas[{setting!r}]"
            settings[setting] = evaluate_formula(where, formula, self._reader(settings))
        return settings

    def is_allowed(self, point: Point) -> bool:
        """Whether the constraints of the sweep allow a point.

        Raises:
          UsageError: a constraint or a formula fails, or a constraint is neither true nor false.
        """
        settings = self.settings(point, self.first_seed)
        for constraint in self._sweep.constraints:
            found = evaluate_formula("sweep.constraints", constraint, self._reader(settings))
            if not isinstance(found, bool):
                raise UsageError(
                    f"sweep.constraints has {constraint!r}, which is {found!r}; expected True or "
                    "False"
                )
            if not found:
                return False
        return True

    @property
    def first_seed(self) -> int | None:
        """The seed of the first run of every point."""
        return self._sweep.seeds[0] if self._sweep.seeds else None

    def trial(self, point: Point, seed: int | None, index: int | None = None) -> Trial:
        """The run of a point.

        Args:
          point: a value for every axis.
          seed: one of the sweep's, None where it has none.
          index: number of the point, where points are drawn; None for a grid.

        Raises:
          UsageError: it is impossible; the message starts with what differs.
        """
        differing = point if seed is None else {**point, SEED: seed}
        number = "" if index is None else f"p{index:03d}"
        name = trial_name(differing, number)
        key = name
        if index is not None:
            key = number if seed is None else f"{number},{SEED}={seed}"
        settings = self.settings(point, seed)
        values = {section: dict(names) for section, names in self._bound.items()}
        run_folder = f"{self._folder}/trials/{name}"
        for setting, value in {**settings, self._kind.folder_setting: run_folder}.items():
            section, field = setting.split(".")
            values[section][field] = value
        try:
            config = build_configuration(self._kind.root, values)
        except UsageError as error:
            raise UsageError(f"trial {name}: {error}") from error
        return Trial(key, name, point, seed, settings, config, cost_of(config))

    def _reader(self, settings: Mapping[str, Any]):
        """What names of formulas mean, where a trial has these settings so far."""

        def value_of(name: str) -> Any:
            if name in settings:
                return settings[name]
            if name in QUANTITIES and self._kind.command == "pretrain":
                return self._quantity(name, value_of)
            section, field = self._kind.split(name, "the formula")
            bound = self._bound.get(section, {})
            return bound[field] if field in bound else self._kind.default_of(name)

        return value_of

    def _quantity(self, name: str, value_of) -> float:
        """What follows from the model and the batch.

        Raises:
          UsageError: a setting of the model is missing or wrong.
        """
        fields = GLMConfig.__dataclass_fields__
        model = build_section("model", GLMConfig, {n: value_of(f"model.{n}") for n in fields})
        if name == "num_parameters":
            return num_parameters(model)
        length, batch_size = value_of("data.sequence_length"), value_of("data.batch_size")
        return flops_per_step(model, length, batch_size, value_of("train.target_fraction"))

    def _check_names(self) -> None:
        sweep = self._sweep
        named = {
            "sweep.choices": sweep.choices,
            "sweep.ranges": sweep.ranges,
            "sweep.formulas": sweep.formulas,
            "sweep.seed_settings": sweep.seed_settings,
            **{f"sweep.variants[{name!r}]": variant for name, variant in sweep.variants.items()},
        }
        for where, settings in named.items():
            for setting in settings:
                self._kind.split(setting, where)
                if setting == self._kind.folder_setting:
                    raise UsageError(
                        f"{where} has {setting}, which the sweep sets: every trial has a run "
                        "folder of its own"
                    )
                if (
                    sweep.seeds
                    and setting in self._seed_settings
                    and where != "sweep.seed_settings"
                ):
                    raise UsageError(f"{setting} is set by both {where} and sweep.seeds")
