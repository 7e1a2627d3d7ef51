"""Requests to stop a run: SIGTERM and Ctrl-C are noted, and the loop stops between two steps."""

from __future__ import annotations

import os
import signal
from types import FrameType
from typing import Any

import jax
from jax.experimental import multihost_utils


class StopRequest:
    """Notes SIGTERM and SIGINT while it is entered; a second SIGINT interrupts at once.

    With several processes, a signal to one of them stops all after the same step.
    """

    def __init__(self):
        self._asked = False
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> StopRequest:
        # With several processes the coordination service watches SIGTERM and agrees on one step.
        watched = [signal.SIGINT] if jax.process_count() > 1 else [signal.SIGINT, signal.SIGTERM]
        for number in watched:
            self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_error) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def asked(self, step: int) -> bool:
        """Whether to stop after this step; all processes get the same answer for the same step."""
        if jax.process_count() > 1:
            return multihost_utils.reached_preemption_sync_point(step)
        return self._asked

    def _note(self, number: int, _frame: FrameType | None) -> None:
        if self._asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        self._asked = True
        if jax.process_count() > 1:
            os.kill(os.getpid(), signal.SIGTERM)
