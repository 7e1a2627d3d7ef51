"""The trials of a sweep in Optuna's storage, shared by any number of drivers.

A trial is *proposed* by adding it to the study in one operation, with all that belongs to it, and
*claimed* by the change from waiting to running, which a storage lets one driver make. If two
propose the same, the first in the study's order counts, for everyone. A trial whose driver is lost
is *abandoned*: marked as failed, which again one driver does, and proposed anew. So each state is
reached by one atomic operation, and a driver may be killed between any two of them.
"""

from __future__ import annotations

import ast
import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState, create_trial

from glm_jax.errors import UsageError
from glm_jax.sweeps.drivers import Drivers
from glm_jax.sweeps.trials import Trial

KEY, NAME, POINT, SEED, SETTINGS = "key", "name", "point", "seed", "settings"
JOB, DRIVER, WANTED_BY = "job", "driver", "wanted_by:"
ABANDONED, MESSAGE, RESULT, COST = "abandoned", "message", "result", "cost"
RETRIED = "retried:"  # in the study: failed trials that are to be tried again
BASE = "base"  # in the study: what the sweep's file sets for the run


class SweepStudy:
    """The trials of one study, as one driver sees and changes them."""

    def __init__(self, storage: BaseStorage, study_id: int, drivers: Drivers):
        """Args:
        storage: where the study is.
        study_id: its number there.
        drivers: of the study.
        """
        self.storage = storage
        self.study_id = study_id
        self._drivers = drivers

    def check_base(self, base: Mapping[str, str], name: str) -> None:
        """Makes sure that the study varies the same run as this sweep.

        Args:
          base: what the sweep's file sets for the run, as text, by setting.
          name: of the study.

        Raises:
          UsageError: something differs.
        """
        recorded = self.storage.get_study_user_attrs(self.study_id).get(BASE)
        if recorded is None:
            self.storage.set_study_user_attr(self.study_id, BASE, dict(base))
            return
        for setting in sorted({*base, *recorded}):
            if base.get(setting) != recorded.get(setting):
                raise UsageError(
                    f"{setting} is {base.get(setting, 'not set')}, but the study {name} was "
                    f"started with {recorded.get(setting, 'no value')}; give the sweep another "
                    "folder"
                )

    def current(self) -> dict[str, FrozenTrial]:
        """The trial that counts for every key."""
        retried = self._retried()
        found: dict[str, FrozenTrial] = {}
        for trial in self.storage.get_all_trials(self.study_id, deepcopy=False):
            if KEY in trial.user_attrs and not self._is_void(trial, retried):
                found.setdefault(trial.user_attrs[KEY], trial)
        return found

    def is_open(self, trial: FrozenTrial) -> bool:
        """Whether a trial can be claimed: it waits, or its driver is lost."""
        if trial.state == TrialState.RUNNING:
            return self._is_lost(trial)
        return trial.state == TrialState.WAITING

    def claim(
        self, trial: Trial, distributions: Mapping[str, BaseDistribution] | None = None
    ) -> FrozenTrial | None:
        """Makes a trial this driver's, proposing it where it is missing.

        Args:
          trial: what to run.
          distributions: of the values of its point; None for those of a grid.

        Returns:
          It, now running; None where it is done, or another driver has it.

        Raises:
          UsageError: the study has other settings for it.
        """
        found = self.current().get(trial.key)
        if found is not None and found.state == TrialState.RUNNING and self._is_lost(found):
            self._abandon(found)
            found = self.current().get(trial.key)
        if found is None:
            self.propose(trial, distributions or {})
            found = self.current()[trial.key]
        if found.state != TrialState.WAITING:
            return None
        if trial.point == point_of(found):
            check_settings(found, trial)
        number = found._trial_id
        try:
            attribute = f"{WANTED_BY}{self._drivers.token}"
            self.storage.set_trial_user_attr(number, attribute, True)
            if not self.storage.set_trial_state_values(number, TrialState.RUNNING):
                return None
        except UpdateFinishedTrialError:
            return None
        self.storage.set_trial_user_attr(number, DRIVER, self._drivers.token)
        return self.storage.get_trial(number)

    def propose(self, trial: Trial, distributions: Mapping[str, BaseDistribution]) -> None:
        """Adds a trial that waits to be claimed, unless another driver has just done so."""
        attributes = {
            KEY: trial.key,
            NAME: trial.name,
            POINT: _as_text(trial.point),
            SEED: trial.seed,
            SETTINGS: _as_text(trial.settings),
            COST: None if trial.cost is None else dataclasses.asdict(trial.cost),
        }
        if job := self._last_job(trial.key):
            attributes[JOB] = job
        params = {name: _param(trial.point[name]) for name in distributions}
        proposed = create_trial(
            state=TrialState.WAITING,
            params=params,
            distributions=dict(distributions),
            user_attrs=attributes,
        )
        number = self.storage.create_new_trial(self.study_id, proposed)
        if self.current()[trial.key]._trial_id != number:
            self._abandon(self.storage.get_trial(number))

    def release(self, found: FrozenTrial, trial: Trial) -> None:
        """Gives up a claimed trial that is not done, so that any driver may continue it."""
        self._abandon(self.storage.get_trial(found._trial_id))
        self.propose(trial, found.distributions)

    def record(self, found: FrozenTrial, name: str, value: Any) -> None:
        """Adds to what is known of a claimed trial; once it is finished, nothing can be added."""
        self.storage.set_trial_user_attr(found._trial_id, name, value)

    def finish(self, found: FrozenTrial, state: TrialState, value: float | None = None) -> bool:
        """Ends a claimed trial; False where another driver took this one for lost."""
        values = None if value is None else [value]
        try:
            self.storage.set_trial_state_values(found._trial_id, state, values)
        except UpdateFinishedTrialError:
            return False
        return True

    def retry_failed(self) -> int:
        """Makes all failed trials count as missing; returns how many there are."""
        failed = [t for t in self.current().values() if t.state == TrialState.FAIL]
        for trial in failed:
            self.storage.set_study_user_attr(self.study_id, f"{RETRIED}{trial.number}", True)
        return len(failed)

    def _retried(self) -> set[int]:
        names = self.storage.get_study_user_attrs(self.study_id)
        return {int(name.removeprefix(RETRIED)) for name in names if name.startswith(RETRIED)}

    @staticmethod
    def _is_void(trial: FrozenTrial, retried: set[int]) -> bool:
        """Whether a later trial of the same key counts instead."""
        abandoned = trial.state == TrialState.FAIL and ABANDONED in trial.user_attrs
        return abandoned or trial.number in retried

    def _is_lost(self, trial: FrozenTrial) -> bool:
        """Whether the driver of a running trial is gone."""
        names = trial.user_attrs
        if DRIVER in names:
            return not self._drivers.is_alive(names[DRIVER])
        # Between winning it and writing that down: one of those who wanted it.
        wanting = [n.removeprefix(WANTED_BY) for n in names if n.startswith(WANTED_BY)]
        return not any(self._drivers.is_alive(token) for token in wanting)

    def _abandon(self, trial: FrozenTrial) -> None:
        try:
            self.storage.set_trial_user_attr(trial._trial_id, ABANDONED, True)
            self.storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)
        except UpdateFinishedTrialError:
            pass  # another driver was faster, or the trial's own has finished it after all

    def _last_job(self, key: str) -> Any:
        """What an abandoned trial of a key ran as, None where nothing was started."""
        trials = self.storage.get_all_trials(self.study_id, deepcopy=False)
        jobs = [t.user_attrs.get(JOB) for t in trials if t.user_attrs.get(KEY) == key]
        return next((job for job in reversed(jobs) if job), None)


def point_of(trial: FrozenTrial) -> dict[str, Any]:
    """The point that a trial was proposed with."""
    return _from_text(trial.user_attrs[POINT])


def settings_of(trial: FrozenTrial) -> dict[str, Any]:
    """The settings that a trial was proposed with."""
    return _from_text(trial.user_attrs[SETTINGS])


def check_settings(found: FrozenTrial, trial: Trial) -> None:
    """Makes sure that a trial in the study is the one that the sweep means.

    Raises:
      UsageError: it has other settings.
    """
    recorded = settings_of(found)
    for setting in sorted({*recorded, *trial.settings}):
        if recorded.get(setting) != trial.settings.get(setting):
            raise UsageError(
                f"trial {trial.name}: {setting} is {trial.settings.get(setting)!r}, but the study "
                f"has it with {recorded.get(setting)!r}; give the sweep another folder"
            )


def _param(value: Any) -> Any:
    """A value as a parameter of Optuna, whose lists have no tuples."""
    is_plain = value is None or isinstance(value, bool | int | float | str)
    return value if is_plain else repr(value)


def _as_text(values: Mapping[str, Any]) -> str:
    """Values by name as JSON of their Python text, which keeps tuples and all digits."""
    return json.dumps({name: repr(value) for name, value in values.items()})


def _from_text(text: str) -> dict[str, Any]:
    return {name: ast.literal_eval(value) for name, value in json.loads(text).items()}
