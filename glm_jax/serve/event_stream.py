"""Jobs on behalf of a client, cancelled when the client disconnects."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from glm_jax.serve.errors import RequestError, server_fault, to_json
from glm_jax.serve.jobs import Done, Event, Failed, Job, Mailbox, Tokens
from glm_jax.serve.responses import StreamedText
from glm_jax.serve.worker import Worker

# Many proxies close a stream that is silent for much longer.
SILENCE_SECONDS = 15.0

logger = logging.getLogger(__name__)


@contextlib.asynccontextmanager
async def submitted(
    worker: Worker, job: Job, mailbox: Mailbox, receive: Receive
) -> AsyncIterator[None]:
    """Submits a job; cancels it when the client disconnects, or at the end of the context.

    Raises:
      RequestError: the worker does not take it.
    """
    worker.submit(job)

    async def watch() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        worker.cancel(job)
        mailbox.put(Failed(ClientDisconnect()))

    watching = asyncio.create_task(watch())
    try:
        yield
    finally:
        watching.cancel()
        worker.cancel(job)  # no effect on a job that has ended


async def result_of(worker: Worker, job: Job, mailbox: Mailbox, receive: Receive) -> Any:
    """The result of a job that reports no tokens.

    Raises:
      RequestError: it failed, or the worker does not take it.
      ClientDisconnect: the client left.
    """
    async with submitted(worker, job, mailbox, receive):
        event = await mailbox.get()
    if isinstance(event, Failed):
        raise event.error
    assert isinstance(event, Done)
    return event.result


class EventStream(Response):
    """Streams the events of a job as server-sent events."""

    media_type = "text/event-stream"

    def __init__(
        self,
        worker: Worker,
        job: Job,
        mailbox: Mailbox,
        text: StreamedText,
        finish: Callable[[Any], Any],
    ):
        """Takes the job.

        Args:
          worker: runs the job.
          job: not submitted yet.
          mailbox: receives its events.
          text: makes events of tokens.
          finish: makes the last event of the job's result; runs on a thread of its own.
        """
        # X-Accel-Buffering: nginx would otherwise collect the events.
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        super().__init__(headers=headers)
        del self.headers["content-length"]
        self._worker = worker
        self._job = job
        self._mailbox = mailbox
        self._text = text
        self._finish = finish

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def say(body: bytes, more: bool = True) -> None:
            await send({"type": "http.response.body", "body": body, "more_body": more})

        async with submitted(self._worker, self._job, self._mailbox, receive):
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            await say(as_event("start", self._text.start()))
            while True:
                event = await self._next_event()
                if event is None:
                    await say(b": waiting\n\n")
                elif isinstance(event, Tokens):
                    texts = map(self._text.token, event.tokens)
                    await say(b"".join(as_event("token", text) for text in texts))
                else:
                    break
            if isinstance(event, Failed) and isinstance(event.error, ClientDisconnect):
                return
            await say(await self._last(event))
            await say(b"", more=False)

    async def _next_event(self) -> Event | None:
        try:
            return await asyncio.wait_for(self._mailbox.get(), SILENCE_SECONDS)
        except TimeoutError:
            return None

    async def _last(self, event: Done | Failed) -> bytes:
        try:
            if isinstance(event, Failed):
                raise event.error
            return as_event("done", await run_in_threadpool(self._finish, event.result))
        except RequestError as refusal:
            return as_event("error", refusal.body())
        except Exception:
            logger.exception("the end of a stream failed")
            return as_event("error", server_fault().body())


def as_event(name: str, data: Any) -> bytes:
    """One server-sent event."""
    return b"event: " + name.encode() + b"\ndata: " + to_json(data) + b"\n\n"
