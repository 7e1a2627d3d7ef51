"""How fast training goes: what a step takes, and what part of that is waiting for data."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator

from glm_jax.parallel.batches import Batch


@dataclasses.dataclass(frozen=True)
class Speed:
    """Means over some steps.

    Attributes:
      step_seconds: from the end of one step to the end of the next, without compilation,
        evaluation and the copies of saves.
      data_wait: part of that time in which the loop waited for the next batch. The devices may
        still have been at work on the step before, so that they waited for less.
    """

    step_seconds: float
    data_wait: float


class Clock:
    """Seconds of training, without those of compilation, evaluation and saving."""

    def __init__(self):
        self._steps = 0
        self._seconds = 0.0
        self._window: list[tuple[float, float]] = []  # seconds and waiting of each step
        self._latest: Speed | None = None
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
            self._window.append((now - self._last, self._waiting))
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

    def speed(self) -> Speed | None:
        """Means over the steps since `forget`, or as last known; None before the second step."""
        if self._window:
            seconds = sum(step for step, _ in self._window)
            waited = sum(waiting for _, waiting in self._window)
            self._latest = Speed(seconds / len(self._window), waited / seconds)
        return self._latest

    def forget(self) -> None:
        """Begins the means of `speed` anew."""
        self._window.clear()
