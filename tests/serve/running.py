"""A server in a thread of the test's process, and clients for it."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import io
import json
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import httpx2

from glm_jax.generate.fill import Filler
from glm_jax.serve.app import make_app
from glm_jax.serve.endpoints import Endpoints
from glm_jax.serve.jobs import BlockingJob
from glm_jax.serve.metrics import Metrics
from glm_jax.serve.server import Server, address_of, bind
from glm_jax.serve.settings import ServeSettings
from glm_jax.serve.worker import Worker
from tests.conftest import HANG_SECONDS

# The same rows and top for all tests, so that they share their programs.
SETTINGS = ServeSettings(rows=4, top=3, max_beams=4, max_body=20_000, max_answers=5)


@dataclasses.dataclass(frozen=True)
class Running:
    """A server that runs.

    Its clients load no certificates, which takes longer than most requests.

    Attributes:
      url: where.
      worker: its worker.
      log: its access log.
      stop: ends it as SIGTERM does.
    """

    url: str
    worker: Worker
    log: io.StringIO
    stop: Callable[[], None]

    def get(self, path: str, **options: Any) -> httpx2.Response:
        return httpx2.get(self.url + path, timeout=HANG_SECONDS, verify=False, **options)

    def post(self, path: str, body: Mapping[str, Any], **options: Any) -> httpx2.Response:
        return httpx2.post(
            self.url + path, json=body, timeout=HANG_SECONDS, verify=False, **options
        )

    def post_bytes(self, path: str, content: bytes, headers: Mapping[str, str]) -> httpx2.Response:
        return httpx2.post(
            self.url + path,
            content=content,
            headers=dict(headers),
            timeout=HANG_SECONDS,
            verify=False,
        )

    def fill(self, text: str, **body: Any) -> dict[str, Any]:
        """The answer to a request that succeeds."""
        response = self.post("/v1/fill", {"text": text, **body})
        assert response.status_code == 200, response.text
        return response.json()

    def metric(self, name: str) -> float:
        """One number of the metrics."""
        return read_metric(self.get("/metrics").text, name)

    @contextlib.contextmanager
    def busy(self) -> Iterator[None]:
        """Keeps the worker from taking up anything."""
        taken, release = threading.Event(), threading.Event()

        def wait() -> None:
            taken.set()
            release.wait(HANG_SECONDS)

        self.worker.submit(BlockingJob(lambda _: None, wait))
        assert taken.wait(HANG_SECONDS)
        try:
            yield
        finally:
            release.set()


@contextlib.contextmanager
def serving(
    filler: Filler,
    settings: ServeSettings = SETTINGS,
    *,
    token: str | None = None,
    local_only: bool = False,
) -> Iterator[Running]:
    """A server for the time of a test."""
    metrics, log = Metrics(), io.StringIO()
    worker = Worker(filler, settings, metrics)
    worker.start()
    endpoints = Endpoints(filler, worker, metrics, settings, "tiny")
    app = make_app(endpoints, metrics, token=token, local_only=local_only, log=log)
    started = threading.Event()
    loop = []

    def note() -> None:
        loop.append(asyncio.get_running_loop())
        started.set()

    server = Server(app, worker, grace=settings.grace, started=note)
    bound = bind("127.0.0.1", 0)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]})
    url = address_of(bound)
    thread.start()
    assert started.wait(HANG_SECONDS)

    def stop() -> None:
        loop[0].call_soon_threadsafe(server.stop)

    try:
        yield Running(url, worker, log, stop)
    finally:
        server.should_exit = True
        worker.close()
        worker.abandon()
        thread.join(HANG_SECONDS)
        assert worker.join(HANG_SECONDS)


def read_metric(text: str, name: str) -> float:
    """One number from a text in Prometheus' format."""
    [line] = [line for line in text.splitlines() if line.startswith(name + " ")]
    return float(line.split()[-1])


def read_events(lines: Iterable[str]) -> Iterator[tuple[str, Any]]:
    """Server-sent events from the lines of a stream."""
    name = ""
    for line in lines:
        if line.startswith("event: "):
            name = line.removeprefix("event: ")
        elif line.startswith("data: "):
            yield name, json.loads(line.removeprefix("data: "))


def wait_until(condition: Callable[[], bool], seconds: float = HANG_SECONDS) -> None:
    """Waits for something that comes by itself."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.02)
