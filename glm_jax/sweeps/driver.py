"""The driver of a sweep: claims trials, runs some at a time, and records how they end.

Everything it knows is in the study and in the run folders: killed at any moment and started again,
it continues. Several drivers may work on one study at the same time.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable

from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState

from glm_jax.errors import RunError
from glm_jax.io.lock import local_holder
from glm_jax.io.paths import resolve_path
from glm_jax.sweeps.drivers import Drivers
from glm_jax.sweeps.jobs import Backend, Ended, Job, last_message, run_folder_of
from glm_jax.sweeps.outcomes import Outcome, metric_values, read_outcome
from glm_jax.sweeps.plan import Plan
from glm_jax.sweeps.pruning import Pruning
from glm_jax.sweeps.run_kind import is_complete
from glm_jax.sweeps.search import Search
from glm_jax.sweeps.study import JOB, MESSAGE, RESULT, SweepStudy
from glm_jax.sweeps.trials import Trial
from glm_jax.train.metrics import duration

POLL_SECONDS = 0.1
LOOK_SECONDS = 1.0  # between looks at what other drivers and running trials have done
IN_USE = "is in use by"  # in the message of a run whose folder another process has


@dataclasses.dataclass
class Active:
    """A trial that this driver runs.

    Attributes:
      trial: what it is.
      found: it, in the study.
      slot: what it runs on.
      job: its run; None while another process has its run folder.
      restarts: how often it was killed, or stopped where it had started.
      steps: that it had done when it was last started again.
      pruned: whether it was asked to stop since others are better.
    """

    trial: Trial
    found: FrozenTrial
    slot: int
    job: Job | None = None
    restarts: int = 0
    steps: int = 0
    pruned: bool = False


class Driver:
    """Runs the trials of a plan until all are done."""

    def __init__(
        self,
        plan: Plan,
        study: SweepStudy,
        drivers: Drivers,
        backend: Backend,
        say: Callable[[str], None],
        pruning: Pruning | None = None,
    ):
        """Args:
        plan: of the sweep.
        study: its state.
        drivers: this one and the others.
        backend: where trials run.
        say: reports what happens, a line at a time.
        pruning: decides which trials to stop early.
        """
        self._plan = plan
        self._study = study
        self._drivers = drivers
        self._backend = backend
        self._say = say
        self._pruning = pruning
        self._search = Search(plan, study)
        self._active: list[Active] = []
        self._stopping = False
        self._next_look = 0.0
        self._waiting = ""

    def stop(self) -> None:
        """Asks all running trials to save and stop, and `run` to return when they have."""
        self._stopping = True

    def run(self) -> bool:
        """Runs trials until all are done, also those of other drivers, or until asked to stop.

        Returns:
          Whether all are done.
        """
        stopped: set[int] = set()
        while True:
            self._drivers.beat()
            looking = time.monotonic() >= self._next_look
            if looking:
                self._next_look = time.monotonic() + LOOK_SECONDS
            for active in tuple(self._active):
                self._advance(active, looking)
            if self._stopping and self._backend.is_detached:
                return self._unfinished() == 0  # the next driver finds what still runs
            if self._stopping:
                for active in self._active:
                    if active.job is not None and id(active) not in stopped:
                        stopped.add(id(active))
                        active.job.stop()
                if not self._active:
                    return self._unfinished() == 0
            elif looking or not self._waiting:
                self._fill_slots()
                if not self._active and self._is_over():
                    return True
            time.sleep(POLL_SECONDS)

    def _fill_slots(self) -> None:
        """Starts trials while there are free slots and trials to claim."""
        while len(self._active) < self._backend.num_slots:
            claimed = self._claim_next()
            if claimed is None:
                return
            self._waiting = ""
            slots = {active.slot for active in self._active}
            slot = next(s for s in range(self._backend.num_slots) if s not in slots)
            active = Active(*claimed, slot)
            self._active.append(active)
            self._begin(active)

    def _claim_next(self) -> tuple[Trial, FrozenTrial] | None:
        """The next trial that neither is done nor has a living driver."""
        current = self._study.current()
        for trial in self._search.trials():
            known = current.get(trial.key)
            if known is not None and not self._study.is_open(known):
                continue
            claimed = self._study.claim(trial, self._search.distributions)
            if claimed is not None:
                return trial, claimed
        # Until it is looked again, which is more often while nothing is waited for.
        self._waiting = self._waiting or "other trials"
        return None

    def _begin(self, active: Active) -> None:
        """Starts a claimed trial, or waits for the process that still runs it."""
        record = active.found.user_attrs.get(JOB)
        if record and (job := self._backend.adopt(record)):
            active.job = job
            self._say(f"found      {active.trial.name}, still running")
            return
        self._start(active)

    def _start(self, active: Active) -> None:
        folder = resolve_path(run_folder_of(active.trial, self._plan.kind))
        if local_holder(folder) is not None:
            active.job = None  # `_advance` looks again
            return
        try:
            job = self._backend.start(active.trial, active.slot)
        except RunError as error:
            self._fail(active, str(error))
            return
        try:
            self._study.record(active.found, JOB, dict(job.record))
        except UpdateFinishedTrialError:
            self._drop(active, "was taken over by another driver")
            job.stop()
            return
        job.proceed()
        active.job = job
        self._say(f"started    {active.trial.name}")

    def _advance(self, active: Active, looking: bool) -> None:
        """Looks at a running trial."""
        if active.job is None:
            if self._stopping:
                self._release(active)
            elif looking:
                self._start(active)
            return
        ended = active.job.poll()
        if ended is not None:
            self._settle(active, ended)
        elif looking and self._pruning and not active.pruned:
            folder = run_folder_of(active.trial, self._plan.kind)
            values = metric_values(folder, self._plan.metric)
            if self._pruning.decide(active.found._trial_id, values):
                active.pruned = True
                active.job.stop()

    def _settle(self, active: Active, ended: Ended) -> None:
        """Records how a trial's run ended, or starts it again."""
        folder = run_folder_of(active.trial, self._plan.kind)
        well = ended.code in (0, None)
        message = last_message(self._plan.local_folder, active.trial)
        if well and is_complete(active.trial.config, folder):
            self._complete(active, read_outcome(folder, self._plan.metric, self._plan.goal))
        elif active.pruned and (well or ended.was_killed):
            outcome = read_outcome(folder, self._plan.metric, self._plan.goal)
            self._finish(active, TrialState.PRUNED, outcome, f"stopped at step {outcome.steps}")
        elif self._stopping:
            self._release(active)
        elif well or ended.was_killed:
            self._restart(active, ended, folder)
        elif IN_USE in message:
            active.job = None
        else:
            self._fail(active, message or f"exit code {ended.code}")

    def _complete(self, active: Active, outcome: Outcome) -> None:
        value = outcome.value(self._plan.metric, self._plan.objective)
        if value is None:
            self._fail(active, f"it ended without a finite {self._plan.metric}", outcome)
            return
        time_taken = duration(outcome.train_seconds)
        shown = f"{self._plan.metric} {value:.6g} after {time_taken} of training"
        self._finish(active, TrialState.COMPLETE, outcome, shown, value)

    def _restart(self, active: Active, ended: Ended, folder: str) -> None:
        """Starts again a trial that was killed, or has saved and stopped, unless in vain."""
        killed = bool(ended.code)
        how = f"was killed by signal {-(ended.code or 0)}" if killed else "stopped"
        steps = read_outcome(folder, self._plan.metric, self._plan.goal).steps
        if killed or steps <= active.steps:
            active.restarts += 1
        active.steps = steps
        if active.restarts > self._plan.sweep.max_restarts:
            self._fail(active, f"it {how} {active.restarts} times")
            return
        self._say(f"restarting {active.trial.name}, which {how}")
        self._start(active)

    def _fail(self, active: Active, message: str, outcome: Outcome | None = None) -> None:
        if outcome is None:
            folder = run_folder_of(active.trial, self._plan.kind)
            outcome = read_outcome(folder, self._plan.metric, self._plan.goal)
        self._finish(active, TrialState.FAIL, outcome, message)

    def _finish(
        self,
        active: Active,
        state: TrialState,
        outcome: Outcome,
        message: str,
        value: float | None = None,
    ) -> None:
        """Records the end of a trial, with all that is known of it."""
        try:
            self._study.record(active.found, RESULT, outcome.as_record())
            self._study.record(active.found, MESSAGE, message)
            finished = self._study.finish(active.found, state, value)
        except UpdateFinishedTrialError:
            finished = False
        if not finished:
            self._drop(active, "was taken over by another driver")
            return
        done = self._plan.num_trials - self._unfinished()
        word = {TrialState.COMPLETE: "finished", TrialState.PRUNED: "pruned"}.get(state, "failed")
        counted = f"({done} of {self._plan.num_trials})"
        self._drop(active, f"{message} {counted}", word)

    def _release(self, active: Active) -> None:
        self._study.release(active.found, active.trial)
        self._drop(active, "can be continued", "stopped")

    def _drop(self, active: Active, message: str, word: str = "lost") -> None:
        self._active.remove(active)
        self._waiting = ""
        self._say(f"{word:<10} {active.trial.name}: {message}")

    def _unfinished(self) -> int:
        """How many trials are not done."""
        current = self._study.current()
        known = self._search.known_trials()
        done = sum(t.key in current and current[t.key].state.is_finished() for t in known)
        return self._plan.num_trials - done

    def _is_over(self) -> bool:
        """Whether nothing is left, for other drivers either; says so if they have some."""
        left = self._unfinished()
        if left and self._waiting == "other trials":
            self._waiting = f"{left} trials of other drivers"
            self._say(f"waiting    for {self._waiting}")
        return left == 0
