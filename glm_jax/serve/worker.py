"""The thread that uses the device: fills in rows of a batch, blocking jobs between steps."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import deque

from glm_jax.errors import UsageError
from glm_jax.generate.decode import MAX_STEPS
from glm_jax.generate.decoder import prompt_size
from glm_jax.generate.engine import ActiveFill, Engine, TokenEvent
from glm_jax.generate.fill import Filler
from glm_jax.generate.prompt import Prompt
from glm_jax.generate.settings import Sampling
from glm_jax.serve.errors import RequestError, server_fault, stopping
from glm_jax.serve.jobs import BlockingJob, Done, Event, Failed, FillJob, Job, Token, Tokens
from glm_jax.serve.metrics import Metrics
from glm_jax.serve.requests import field_of
from glm_jax.serve.settings import ServeSettings

# Time between two checks for new and cancelled jobs, with clients streaming or waiting and without.
STEP_SECONDS_WATCHED = 0.05
STEP_SECONDS_UNWATCHED = 0.2

logger = logging.getLogger(__name__)


class Worker:
    """Runs jobs in order of arrival, several fills at a time."""

    def __init__(self, filler: Filler, settings: ServeSettings, metrics: Metrics):
        """Makes a worker that is not running yet.

        Args:
          filler: the model.
          settings: `rows`, `max_slots`, `queue` and `top`.
          metrics: the counters to update.
        """
        self._filler = filler
        self._settings = settings
        self._metrics = metrics
        self._engine: Engine | None = None
        self._thread = threading.Thread(target=self._work, name="worker", daemon=True)
        # Shared by several threads, under this lock.
        self._changed = threading.Condition()
        self._waiting: deque[Job] = deque()
        self._live: set[Job] = set()
        self._closing = False
        # Used only by the worker's thread.
        self._running: dict[ActiveFill, FillJob] = {}
        self._step_seconds = STEP_SECONDS_WATCHED
        self._seconds_a_job = 0.0
        self._last_end = time.monotonic()
        metrics.watch("glm_queue_length", "Requests that wait.", lambda: len(self._waiting))
        metrics.watch("glm_rows", "Texts that can be filled concurrently.", lambda: settings.rows)
        metrics.watch("glm_rows_in_use", "Texts being filled.", lambda: len(self._running))

    def start(self) -> None:
        """Compiles the programs for texts of any length, and starts the thread."""
        self._engine = self._new_engine()
        _warm_up(self._engine, self._filler)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether jobs are accepted."""
        return self._thread.is_alive() and not self._closing

    def submit(self, job: Job) -> None:
        """Puts a job into the queue.

        Raises:
          RequestError: the queue is full, or the worker is closing.
        """
        with self._changed:
            if not self.alive:
                raise stopping()
            if len(self._waiting) >= self._settings.queue:
                seconds = max(1, math.ceil(self._seconds_a_job))
                message = f"{len(self._waiting)} requests wait already; try again in {seconds} s"
                raise RequestError(429, message, headers={"Retry-After": str(seconds)})
            self._waiting.append(job)
            self._live.add(job)
            self._changed.notify()

    def cancel(self, job: Job) -> None:
        """Cancels a job and frees its rows before the next step; it reports no more events."""
        with self._changed:
            self._forget(job)
            self._changed.notify()

    def close(self) -> None:
        """Accepts no more jobs, and refuses those that have not started."""
        with self._changed:
            self._closing = True
            started = [job for job in self._waiting if isinstance(job, FillJob) and job.num_started]
            for job in [job for job in self._waiting if job not in started]:
                self._end(job, Failed(stopping()))
            self._changed.notify()

    def abandon(self) -> None:
        """Cancels all jobs, after `close`."""
        with self._changed:
            for job in list(self._live):
                self._end(job, Failed(stopping()))
            self._changed.notify()

    def join(self, seconds: float) -> bool:
        """Waits for the end of the thread, after `close`; False if it is still busy then."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _end(self, job: Job, event: Event) -> None:
        """Reports the last event of a job, unless it has been reported before."""
        with self._changed:
            ended = job.ended
            self._forget(job)
        if not ended:
            job.report(event)

    def _forget(self, job: Job) -> None:
        job.ended = True
        self._live.discard(job)
        if job in self._waiting:
            self._waiting.remove(job)

    # The methods below run on the worker's thread.

    def _work(self) -> None:
        while self._wait():
            try:
                self._run_once()
            except Exception:
                logger.exception("the worker failed; restarting it")
                self._metrics.faults.inc()
                self._restart()

    def _wait(self) -> bool:
        """Sleeps until there is something to do; False when there will be nothing any more."""
        with self._changed:
            while not (self._waiting or self._running or self._closing):
                self._changed.wait()
                self._last_end = time.monotonic()  # idle time does not count
            return bool(self._waiting or self._running)

    def _run_once(self) -> None:
        if self._engine is None:
            self._engine = self._new_engine()
        for active in [active for active, job in self._running.items() if job.ended]:
            self._engine.stop(active)
            del self._running[active]
        blocking = self._start_waiting(self._engine)
        if blocking is not None:
            self._do(blocking)
        if self._running:
            self._step(self._engine)

    def _start_waiting(self, engine: Engine) -> BlockingJob | None:
        """Assigns free rows to waiting fills, up to the first blocking job, which is returned."""
        while True:
            with self._changed:
                job = self._waiting[0] if self._waiting else None
                if isinstance(job, BlockingJob):
                    self._waiting.popleft()
                    return job
                if not isinstance(job, FillJob) or not engine.num_free:
                    return None
                started = job.fills[job.num_started :][: engine.num_free]
                job.num_started += len(started)
                if job.num_started == len(job.fills):
                    self._waiting.popleft()
            self._running.update(dict.fromkeys(started, job))
            engine.start(started)

    def _do(self, job: BlockingJob) -> None:
        try:
            result = job.function()
        except UsageError as error:
            self._end(job, Failed(RequestError(400, str(error), field=field_of(error))))
        except Exception:
            logger.exception("a beam search or scoring failed")
            self._end(job, Failed(server_fault()))
        else:
            self._end(job, Done(result))
        self._note_end()

    def _step(self, engine: Engine) -> None:
        waits = bool(self._waiting)
        watched = waits or any(job.streams for job in self._running.values())
        seconds = STEP_SECONDS_WATCHED if watched else STEP_SECONDS_UNWATCHED
        steps = max(1, min(MAX_STEPS, int(seconds / self._step_seconds)))
        start = time.perf_counter()
        events = engine.advance(steps, until_one_ends=waits)
        seconds = time.perf_counter() - start
        by_fill: dict[ActiveFill, list[TokenEvent]] = {}
        for one in events:
            by_fill.setdefault(one.active, []).append(one)
        # An active row has an event in every step.
        steps_done = max(map(len, by_fill.values()))
        self._step_seconds = seconds / steps_done
        self._metrics.step.observe(self._step_seconds)
        self._metrics.tokens.inc(sum(one.token is not None for one in events))
        for active, its_events in by_fill.items():
            self._report(self._running[active], active, its_events)

    def _report(self, job: FillJob, active: ActiveFill, events: list[TokenEvent]) -> None:
        is_first = active.sample == 0 and events[0].blank == 0
        tokens = [
            Token(
                active.sample,
                one.blank,
                one.token,
                None if one.token is None else one.log_prob,
                one.closes,
            )
            for one in events
        ]
        if is_first and len(events) == _num_slots(active):
            self._metrics.first_token.observe(time.monotonic() - job.submitted)
        if job.streams and not job.ended:
            job.report(Tokens(tokens))
        last = events[-1]
        if last.closes and last.blank + 1 == len(active.prompt.masks):
            del self._running[active]
            job.num_filled += 1
            if job.num_filled == len(job.fills):
                self._end(job, Done(job.fills))
                self._note_end()

    def _note_end(self) -> None:
        """Updates the average time between ends of jobs, which `Retry-After` reports."""
        now = time.monotonic()
        self._seconds_a_job += 0.2 * (now - self._last_end - self._seconds_a_job)
        self._last_end = now

    def _restart(self) -> None:
        """Fails the running jobs, as their cache may be lost, and drops the engine."""
        with self._changed:
            started = [job for job in self._waiting if isinstance(job, FillJob) and job.num_started]
            # Without an engine the waiting jobs fail too: making one has failed.
            failed = {*self._running.values(), *(self._waiting if not self._engine else started)}
        self._engine = None
        self._running.clear()
        for job in failed:
            self._end(job, Failed(server_fault()))

    def _new_engine(self) -> Engine:
        return Engine(
            self._filler.decoder,
            num_rows=self._settings.rows,
            num_slots=self._settings.max_slots,
            num_top=self._settings.top,
        )


def _num_slots(active: ActiveFill) -> int:
    """Tokens generated for a text so far, the ends of its blanks included."""
    return sum(len(blank.ids) + (blank.end_log_prob is not None) for blank in active.blanks)


def _warm_up(engine: Engine, filler: Filler) -> None:
    """Runs a prompt of every padded length, so that no request waits for a compiler."""
    longest = min(filler.config.num_positions, engine.num_slots - 2)
    first = filler.tokenizer.special["ENC"]
    size = prompt_size(1)
    while True:
        prompt = Prompt([first] * min(size, longest), [0])
        engine.start([ActiveFill(prompt, Sampling(max_blank_length=1))])
        engine.advance(1)
        if size >= longest:
            return
        size *= 2
