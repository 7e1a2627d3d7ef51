"""A sweep from its plan to its last trial: opens the study, chooses the backend, drives."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import PurePath

from optuna.trial import FrozenTrial, TrialState

from glm_jax.errors import RunError, UsageError
from glm_jax.io.files import make_folder, write_file
from glm_jax.io.paths import resolve_path
from glm_jax.sweeps.driver import Driver
from glm_jax.sweeps.drivers import Drivers
from glm_jax.sweeps.jobs import BASE_FILE, Backend
from glm_jax.sweeps.plan import Plan, missing_inputs
from glm_jax.sweeps.pruning import Pruning, make_pruner
from glm_jax.sweeps.storage import open_storage, open_study
from glm_jax.sweeps.study import MESSAGE, NAME, SweepStudy

SWEEP_FILE = "sweep.json"
MAX_NAMED = 3  # failed trials in one message


def run_sweep(
    plan: Plan,
    backend: Backend,
    say: Callable[[str], None],
    *,
    retry_failed: bool = False,
) -> None:
    """Starts, continues or joins a sweep, and returns when all of its trials are done.

    Args:
      plan: of the sweep.
      backend: where its trials run.
      say: reports what happens, a line at a time.
      retry_failed: whether trials that have failed are run again.

    Raises:
      UsageError: data are missing, or the study is that of another sweep.
      RunError: trials have failed.
    """
    if problems := missing_inputs(plan.trials):
        raise UsageError(problems[0])
    pruner = make_pruner(plan.sweep.pruner, plan.sweep.pruner_settings)
    name = study_name(plan)
    make_folder(plan.folder)
    storage = open_storage(plan.sweep.storage, plan.folder)
    study_id = open_study(storage, name, plan.goal)
    drivers = Drivers(storage, study_id)
    study = SweepStudy(storage, study_id, drivers)
    study.check_base(base_text(plan), name)
    write_base(plan)
    if retry_failed:
        say(f"retrying {study.retry_failed()} failed trials")
    pruning = Pruning(storage, name, pruner) if pruner else None
    driver = Driver(plan, study, drivers, backend, say, pruning)
    with stopping_on_signals(driver.stop):
        complete = driver.run()
    if not complete:
        say("stopped; the same command continues the sweep")
    _report_failures(list(study.current().values()))


def study_name(plan: Plan) -> str:
    """The name of a plan's study in its storage."""
    return plan.sweep.study or PurePath(plan.folder).name


def base_text(plan: Plan) -> dict[str, str]:
    """What a sweep's file sets for the run, as gin text by setting; the run folder excluded."""
    return {
        f"{section}.{name}": repr(value)
        for section, values in plan.bound.items()
        for name, value in values.items()
        if f"{section}.{name}" != plan.kind.folder_setting
    }


def write_base(plan: Plan) -> None:
    """Writes what all trials share, as a gin file, and what a report needs to know."""
    folder = resolve_path(plan.folder)
    lines = [f"{setting} = {value}" for setting, value in base_text(plan).items()]
    write_file(folder / BASE_FILE, ("\n".join(lines) + "\n").encode())
    facts = {
        "storage": plan.sweep.storage,
        "study": study_name(plan),
        "command": plan.kind.command,
        "metric": plan.metric,
        "goal": plan.goal,
        "objective": plan.objective,
        "folder_setting": plan.kind.folder_setting,
        "num_trials": plan.num_trials,
    }
    write_file(folder / SWEEP_FILE, (json.dumps(facts, indent=2) + "\n").encode())


@contextmanager
def stopping_on_signals(stop: Callable[[], None]) -> Iterator[None]:
    """Calls `stop` on SIGTERM and Ctrl-C; a second Ctrl-C interrupts at once."""
    asked = []

    def note(number: int, _frame: object) -> None:
        if asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        asked.append(number)
        stop()

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            with suppress(TypeError):
                signal.signal(number, handler)


def _report_failures(trials: list[FrozenTrial]) -> None:
    """Raises a RunError that names trials that have failed, if any have."""
    failed = [trial for trial in trials if trial.state == TrialState.FAIL]
    if not failed:
        return
    named = [f"{t.user_attrs[NAME]}: {t.user_attrs.get(MESSAGE, '')}" for t in failed[:MAX_NAMED]]
    more = f"; and {len(failed) - MAX_NAMED} more" if len(failed) > MAX_NAMED else ""
    raise RunError(f"{len(failed)} of {len(trials)} trials failed: {'; '.join(named)}{more}")
