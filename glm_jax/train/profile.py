"""Traces of some steps for the profiler, where a run is asked for them."""

from __future__ import annotations

import dataclasses
import re

import jax
from etils import epath

from glm_jax.errors import UsageError


@dataclasses.dataclass(frozen=True)
class ProfileSteps:
    """Steps to trace, counted from the run's first; both ends are traced."""

    first: int
    last: int


def parse_profile_steps(text: str) -> ProfileSteps:
    """Steps such as 10:15.

    Raises:
      UsageError: the text is no such window.
    """
    match = re.fullmatch(r"(\d+):(\d+)", text.strip())
    steps = ProfileSteps(int(match[1]), int(match[2])) if match else None
    if steps is None or not 1 <= steps.first <= steps.last:
        raise UsageError(
            f"--profile_steps is {text!r}; expected FIRST:LAST, two steps from 1 on, as in 10:15"
        )
    return steps


class Profiler:
    """Traces the steps of a window into a folder; leaving it as a context ends a trace begun."""

    def __init__(self, folder: epath.Path, steps: ProfileSteps | None):
        """Traces nothing where there are no steps to trace."""
        self._folder = folder
        self._steps = steps
        self._running = False

    def __enter__(self) -> Profiler:
        return self

    def __exit__(self, *_error) -> None:
        self._stop()

    def before_step(self, step: int) -> None:
        """Begins the trace before its first step, or before the first that is left of it."""
        steps = self._steps
        if steps and not self._running and steps.first <= step <= steps.last:
            self._folder.mkdir(parents=True, exist_ok=True)
            jax.profiler.start_trace(self._folder)
            self._running = True

    def after_step(self, step: int) -> None:
        """Ends the trace when its last step is done."""
        if self._steps and step >= self._steps.last:
            self._stop()

    def _stop(self) -> None:
        if self._running:
            self._running = False
            jax.profiler.stop_trace()
