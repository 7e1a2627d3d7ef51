"""How fast training is: the time of a step, and the share of it spent waiting for data."""

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
      data_wait: share of that time in which the loop waited for the next batch. The devices may
        still have been busy with the previous step, so that they waited for less.
    """

    step_seconds: float
    data_wait: float


class StepTimer:
    """Seconds of training, without those of compilation, evaluation and saving."""

    def __init__(self):
        self._steps = 0
        self._seconds = 0.0
        self._window: list[tuple[float, float]] = []  # seconds and waiting of each step
        self._latest: Speed | None = None
        self._waiting = 0.0  # since the last step's end
        self._last: float | None = None

    def pause(self) -> None:
        """Stops the clock until the next step has ended."""
        self._last = None

    def step_ended(self) -> None:
        """Counts a step, unless it is the first one or the first after a pause."""
        now = time.perf_counter()
        if self._last is not None:
            self._steps += 1
            self._seconds += now - self._last
            self._window.append((now - self._last, self._waiting))
        self._last, self._waiting = now, 0.0

    def next_batch(self, batches: Iterator[Batch]) -> Batch:
        """The next batch; the time until it is ready counts as waiting."""
        start = time.perf_counter()
        batch = next(batches)
        self._waiting += time.perf_counter() - start
        return batch

    @property
    def seconds_per_step(self) -> float | None:
        """Mean of all steps so far; None before the second step."""
        return self._seconds / self._steps if self._steps else None

    def speed(self) -> Speed | None:
        """Means over the steps since `reset_window`, or the last known ones.

        None before the second step.
        """
        if self._window:
            seconds = sum(step for step, _ in self._window)
            waited = sum(waiting for _, waiting in self._window)
            self._latest = Speed(seconds / len(self._window), waited / seconds)
        return self._latest

    def reset_window(self) -> None:
        """Resets the means of `speed`."""
        self._window.clear()
