"""The training loop: step, log, evaluate, save, until done or asked to stop."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator

import jax

from glm_jax.errors import RunError
from glm_jax.metrics import duration
from glm_jax.train.gradients import Batch
from glm_jax.train.state import TrainState
from glm_jax.train.step import Metrics


@dataclasses.dataclass(frozen=True)
class Hooks:
    """What the loop calls; the loop itself only counts.

    Attributes:
      log: (step, metrics) every `log_every` steps, at the end and before stopping early.
      show: (line, logged) after every step.
      evaluate: (step, state) every `evaluate_every` steps and at the end.
      save: (step, state) every `save_every` steps, at the end and before stopping early.
      stop_asked: (step) -> whether to stop after this step.
    """

    log: Callable[[int, dict[str, float]], None]
    show: Callable[[str, bool], None]
    evaluate: Callable[[int, TrainState], None]
    save: Callable[[int, TrainState], None]
    stop_asked: Callable[[int], bool]


@dataclasses.dataclass(frozen=True)
class Pace:
    """When things happen, in steps, and what a step is worth."""

    num_steps: int
    log_every: int
    evaluate_every: int
    save_every: int
    tokens_per_step: int
    max_skipped_steps: int


class Clock:
    """Seconds of training, without those of compilation, evaluation and saving."""

    def __init__(self):
        self._steps = 0
        self._seconds = 0.0
        self._waited = 0.0
        self._waiting = 0.0  # since the last step's end
        self._last: float | None = None

    def pause(self) -> None:
        """What follows until the next step is not training."""
        self._last = None

    def tick(self) -> None:
        """A step has ended."""
        now = time.perf_counter()
        if self._last is not None:
            self._steps += 1
            self._seconds += now - self._last
            self._waited += self._waiting
        self._last, self._waiting = now, 0.0

    def next_of(self, batches: Iterator[Batch]) -> Batch:
        """The next batch; the time until it is there is waiting."""
        begin = time.perf_counter()
        batch = next(batches)
        self._waiting += time.perf_counter() - begin
        return batch

    @property
    def seconds_per_step(self) -> float | None:
        """Mean so far; None before the second step."""
        return self._seconds / self._steps if self._steps else None

    @property
    def data_wait(self) -> float | None:
        """Part of the time that the loop waited for the next batch; None before the second step.

        The devices may still have been at work on the step before, so that they waited for less.
        """
        return self._waited / self._seconds if self._steps else None


def train(
    state: TrainState,
    train_step: Callable[[TrainState, Batch], tuple[TrainState, Metrics]],
    batches: Iterator[Batch],
    first_step: int,
    pace: Pace,
    hooks: Hooks,
) -> int:
    """Runs from `first_step` to `pace.num_steps`, or until asked to stop.

    While the devices work on a step the host prepares the next one's batch; metrics are read one
    step late so that neither waits for the other.

    Returns:
      The number of steps done.

    Raises:
      RunError: more updates than allowed were left out because loss or gradients were not finite.
    """
    clock = Clock()
    step, running = first_step, None

    def finish(done: int, running: Metrics, *, last: bool) -> None:
        metrics = {name: float(value) for name, value in jax.device_get(running).items()}
        clock.tick()
        _check_finite(done, metrics, pace.max_skipped_steps)
        logged = done % pace.log_every == 0 or last
        if clock.seconds_per_step and clock.data_wait is not None:
            metrics["tokens_per_second"] = pace.tokens_per_step / clock.seconds_per_step
            metrics["data_wait"] = clock.data_wait
        hooks.show(progress_line(done, pace.num_steps, metrics, clock.seconds_per_step), logged)
        if logged:
            hooks.log(done, metrics)

    while step < pace.num_steps:
        state, metrics = train_step(state, clock.next_of(batches))
        step += 1
        if running is not None:
            finish(step - 1, running, last=False)
        running = metrics
        stopping = hooks.stop_asked(step)
        last = stopping or step == pace.num_steps
        evaluating = step % pace.evaluate_every == 0 or step == pace.num_steps
        saving = step % pace.save_every == 0 or last
        if evaluating or saving:
            finish(step, running, last=last)
            running = None
            if evaluating:
                hooks.evaluate(step, state)
            if saving:
                hooks.save(step, state)
            clock.pause()
        if stopping:
            break
    return step


def progress_line(
    step: int, num_steps: int, metrics: dict[str, float], seconds_per_step: float | None
) -> str:
    """step, loss, tokens/s, time left and time lost to waiting for data, for people."""
    line = f"step {step:>{len(str(num_steps))}}/{num_steps}  loss {metrics['loss']:.3f}"
    if seconds_per_step is not None:
        line += f"  {metrics['tokens_per_second']:,.0f} tokens/s"
        line += f"  {duration((num_steps - step) * seconds_per_step)} left"
        line += f"  {metrics['data_wait']:.1%} waiting for data"
    return line


def _check_finite(step: int, metrics: dict[str, float], max_skipped_steps: int) -> None:
    skipped = int(metrics["skipped_steps"])
    if skipped > max_skipped_steps:
        raise RunError(
            f"step {step}: loss {metrics['loss']} with gradient norm {metrics['gradient_norm']}; "
            f"{skipped} update(s) were not finite, and train.max_skipped_steps is "
            f"{max_skipped_steps}"
        )
