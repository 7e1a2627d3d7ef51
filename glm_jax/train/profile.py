"""Traces of some steps for the profiler."""

from __future__ import annotations

import dataclasses
import re
from tempfile import TemporaryDirectory

import jax
from etils import epath

from glm_jax.errors import UsageError
from glm_jax.io.files import copy_folder, make_folder
from glm_jax.io.paths import is_url


@dataclasses.dataclass(frozen=True)
class ProfileSteps:
    """Steps to trace, counted from the run's first; both ends are traced."""

    first: int
    last: int


def parse_profile_steps(text: str) -> ProfileSteps:
    """Steps such as 10:15.

    Raises:
      UsageError: the text names no such steps.
    """
    match = re.fullmatch(r"(\d+):(\d+)", text.strip())
    steps = ProfileSteps(int(match[1]), int(match[2])) if match else None
    if steps is None or not 1 <= steps.first <= steps.last:
        raise UsageError(
            f"--profile_steps is {text!r}; expected FIRST:LAST, two steps from 1 on, as in 10:15"
        )
    return steps


class Profiler:
    """Traces some steps into a folder; leaving it as a context ends a trace in progress."""

    def __init__(self, folder: epath.Path, steps: ProfileSteps | None):
        """Does nothing where `steps` is None."""
        self._folder = folder
        self._steps = steps
        self._running = False
        self._temporary: TemporaryDirectory[str] | None = None

    def __enter__(self) -> Profiler:
        return self

    def __exit__(self, *_error) -> None:
        self._stop()

    def before_step(self, step: int) -> None:
        """Starts the trace before its first step, or the first of its steps that this start has."""
        steps = self._steps
        if steps and not self._running and steps.first <= step <= steps.last:
            # The profiler writes local files only.
            if is_url(self._folder):
                self._temporary = TemporaryDirectory(prefix="glm-jax-profile-")
            else:
                make_folder(self._folder)
            jax.profiler.start_trace(self._temporary.name if self._temporary else self._folder)
            self._running = True

    def after_step(self, step: int) -> None:
        """Ends the trace when its last step is done."""
        if self._steps and step >= self._steps.last:
            self._stop()

    def _stop(self) -> None:
        if self._running:
            self._running = False
            jax.profiler.stop_trace()
            if self._temporary:
                copy_folder(self._temporary.name, self._folder)
                self._temporary.cleanup()
                self._temporary = None
