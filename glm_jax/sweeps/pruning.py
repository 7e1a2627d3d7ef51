"""Stops trials that do worse than others did at the same step."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import optuna
from optuna.pruners import BasePruner
from optuna.storages import BaseStorage

from glm_jax.errors import UsageError

PRUNER_CLASSES: dict[str, type[BasePruner]] = {
    "median": optuna.pruners.MedianPruner,
    "successive_halving": optuna.pruners.SuccessiveHalvingPruner,
}


def make_pruner(name: str, settings: Mapping[str, Any]) -> BasePruner | None:
    """The pruner that a sweep asks for, None for none.

    Raises:
      UsageError: it doesn't take these settings.
    """
    if name == "none":
        if settings:
            raise UsageError(
                f"sweep.pruner_settings has {next(iter(settings))}, but sweep.pruner is 'none'"
            )
        return None
    pruner = PRUNER_CLASSES[name]
    known = [n for n in inspect.signature(pruner).parameters if n != "self"]
    for setting in settings:
        if setting not in known:
            raise UsageError(
                f"sweep.pruner_settings has {setting!r}, but {name} takes {', '.join(known)}"
            )
    try:
        return pruner(**settings)
    except (TypeError, ValueError) as error:
        raise UsageError(f"sweep.pruner_settings is {dict(settings)}: {error}") from error


class Pruning:
    """Reports the metrics of running trials to the study, and asks its pruner about them."""

    def __init__(self, storage: BaseStorage, name: str, pruner: BasePruner):
        """Args:
        storage: where the study is.
        name: of the study.
        pruner: decides.
        """
        self._storage = storage
        self._pruner = pruner
        self._study = optuna.load_study(study_name=name, storage=storage, pruner=pruner)

    def decide(self, number: int, values: Mapping[int, float]) -> bool:
        """Whether to stop a trial.

        Args:
          number: its id in the storage.
          values: of the metric so far, by step.
        """
        known = self._storage.get_trial(number).intermediate_values
        for step in sorted(values):
            if step in known:
                continue
            self._storage.set_trial_intermediate_value(number, step, values[step])
            if self._pruner.prune(self._study, self._storage.get_trial(number)):
                return True
        return False
