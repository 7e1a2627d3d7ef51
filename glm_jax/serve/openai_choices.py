"""The answers to one request in OpenAI's format, each a job of its own in a row of its own."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Any, NamedTuple

from starlette.requests import ClientDisconnect
from starlette.types import Receive

from glm_jax.chat.growing import AnswerText, GrowingAnswer
from glm_jax.chat.model import FittedPrompt
from glm_jax.generate.engine import ActiveFill, FilledBlank
from glm_jax.serve.jobs import Done, Event, Failed, FillJob, Tokens
from glm_jax.serve.openai_requests import GenerationRequest
from glm_jax.serve.worker import Worker


class Progress(NamedTuple):
    """What an event adds to an answer.

    Attributes:
      text: text that no further tokens can change.
      tokens: the range of its new tokens.
      finish: why it ended, "stop" or "length"; None while it grows.
    """

    text: str
    tokens: range
    finish: str | None


class Choice:
    """One answer.

    Attributes:
      index: its number in the request.
      fitted: its prompt.
      job: its job.
      text: its text so far.
      finish: why it ended, "stop" or "length"; None while it grows.
    """

    def __init__(
        self,
        index: int,
        fitted: FittedPrompt,
        asked: GenerationRequest,
        shown: AnswerText,
        *,
        seed: int,
        sample: int,
        queue: EventQueue,
    ) -> None:
        """Makes its job, which is not submitted yet."""
        sampling = asked.sampling(fitted.max_new_tokens, seed)
        self.index = index
        self.fitted = fitted
        self.active = ActiveFill(fitted.prompt, sampling, sample)
        # Stop strings are looked for while the answer grows, so that its row is free at once.
        watched = asked.stream or bool(asked.stops)
        self.job = FillJob(lambda event: queue.put(self, event), [self.active], watched)
        self.finish: str | None = None
        self._growing = GrowingAnswer(shown, asked.stops)

    @property
    def text(self) -> str:
        """Its text so far."""
        return self._growing.text

    @property
    def ids(self) -> list[int]:
        """Its tokens so far, without the one that ends it."""
        return self._growing.ids

    @property
    def blank(self) -> FilledBlank:
        """Its tokens with their probabilities."""
        return self.active.blanks[0]

    def take(self, event: Tokens | Done) -> Progress:
        """Takes an event of its job."""
        start = len(self.ids)
        if isinstance(event, Tokens):
            ids = [token.id for token in event.tokens if token.id is not None]
        else:
            ids = self.blank.ids[start:]
        text = "".join(map(self._growing.add, ids))
        if self._growing.stopped:
            self.finish = "stop"
        elif isinstance(event, Done):
            text += self._growing.end()
            at_end = self._growing.stopped or self.blank.end_log_prob is not None
            self.finish = "stop" if at_end else "length"
        return Progress(text, range(start, len(self.ids)), self.finish)


class EventQueue:
    """Events of several jobs, on their way from the worker's thread to a coroutine."""

    def __init__(self) -> None:
        """Made where the events are read."""
        self._loop = asyncio.get_running_loop()
        self._events: asyncio.Queue[tuple[Choice | None, Event]] = asyncio.Queue()

    def put(self, choice: Choice | None, event: Event) -> None:
        """Takes an event from any thread; without a choice, it is about all of them."""
        # After the end of the loop no coroutine waits for it.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._events.put_nowait, (choice, event))

    async def get(self) -> tuple[Choice | None, Event]:
        """Waits for the next event."""
        return await self._events.get()


@contextlib.asynccontextmanager
async def submitted(
    worker: Worker, choices: Sequence[Choice], queue: EventQueue, receive: Receive
) -> AsyncIterator[None]:
    """Submits all jobs; cancels them when the client disconnects or at the end of the context.

    Raises:
      RequestError: the worker does not take them.
    """

    def cancel() -> None:
        for choice in choices:
            worker.cancel(choice.job)  # no effect on a job that has ended

    async def watch() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        cancel()
        queue.put(None, Failed(ClientDisconnect()))

    watching: asyncio.Task[Any] | None = None
    try:
        for choice in choices:
            worker.submit(choice.job)
        watching = asyncio.create_task(watch())
        yield
    finally:
        if watching is not None:
            watching.cancel()
        cancel()


async def progress_of(
    worker: Worker, choices: Sequence[Choice], queue: EventQueue, silence: float | None = None
) -> AsyncIterator[tuple[Choice, Progress] | None]:
    """What happens to submitted answers until all have ended; None after some seconds of silence.

    Raises:
      RequestError: a job failed.
      ClientDisconnect: the client left.
    """
    open_choices = {choice.index for choice in choices}
    while open_choices:
        try:
            choice, event = await asyncio.wait_for(queue.get(), silence)
        except TimeoutError:
            yield None
            continue
        if isinstance(event, Failed):
            raise event.error
        if choice is None or choice.finish is not None:
            continue  # what was on its way when a stop string ended it
        progress = choice.take(event)
        if progress.finish is not None:
            worker.cancel(choice.job)
            open_choices.discard(choice.index)
        if progress.text or progress.tokens or progress.finish:
            yield choice, progress
