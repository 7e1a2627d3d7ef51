"""Jobs of the worker, and the events that it reports."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from glm_jax.generate.engine import ActiveFill


class Token(NamedTuple):
    """One token of one text.

    Attributes:
      sample: which sample it belongs to.
      blank: which blank.
      id: the token; None where the blank ends instead.
      log_prob: its log-probability; None where the blank ends.
      closes: whether the blank is filled.
    """

    sample: int
    blank: int
    id: int | None
    log_prob: float | None
    closes: bool


class Tokens(NamedTuple):
    """The tokens of some steps, in order."""

    tokens: list[Token]


class Done(NamedTuple):
    """The job is done: its fills are complete, or this is the result of its function."""

    result: Any


class Failed(NamedTuple):
    """The job failed."""

    error: Exception


Event = Tokens | Done | Failed


@dataclasses.dataclass(eq=False)
class Job:
    """A task for the device.

    Attributes:
      report: callback for the job's events, callable from any thread.
      ended: whether its last event was reported or the job was cancelled; set by the worker.
      submitted: when it was made.
    """

    report: Callable[[Event], None]
    ended: bool = dataclasses.field(default=False, init=False)
    submitted: float = dataclasses.field(default_factory=time.monotonic, init=False)


@dataclasses.dataclass(eq=False)
class BlockingJob(Job):
    """A function with exclusive use of the device, run between two steps of the other jobs."""

    function: Callable[[], Any]


@dataclasses.dataclass(eq=False)
class FillJob(Job):
    """One text, in one row for each sample.

    Attributes:
      fills: the samples.
      streams: whether every token is reported.
      num_started: samples that have been assigned a row.
      num_filled: samples that are complete.
    """

    fills: list[ActiveFill]
    streams: bool
    num_started: int = dataclasses.field(default=0, init=False)
    num_filled: int = dataclasses.field(default=0, init=False)


class Mailbox:
    """Events of a job, on their way from the worker's thread to a coroutine."""

    def __init__(self) -> None:
        """Made where the events are to be read."""
        self._loop = asyncio.get_running_loop()
        self._events: asyncio.Queue[Event] = asyncio.Queue()

    def put(self, event: Event) -> None:
        """Takes an event from any thread."""
        # After the end of the loop no coroutine waits for it.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._events.put_nowait, event)

    async def get(self) -> Event:
        """Waits for the next event."""
        return await self._events.get()
