"""A server from its first request to its last."""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator

import uvicorn
from starlette.types import ASGIApp

from glm_jax.errors import UsageError
from glm_jax.serve.worker import Worker

# Longer than proxies keep a connection that they may use again.
KEEP_ALIVE_SECONDS = 75
# After the grace, for the last answers to go out.
LAST_SECONDS = 2


class Server(uvicorn.Server):
    """Shuts down gracefully: accepts no more requests, and finishes those that are running."""

    def __init__(self, app: ASGIApp, worker: Worker, *, grace: float, started: Callable[[], None]):
        """Configures the server.

        Args:
          app: the application.
          worker: what it uses; it is closed with the server.
          grace: seconds that running requests have to end.
          started: called once the server listens.
        """
        config = uvicorn.Config(
            app,
            loop="asyncio",
            http="h11",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=math.ceil(grace) + LAST_SECONDS,
        )
        super().__init__(config)
        self._worker = worker
        self._grace = grace
        self._on_started = started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Starts to listen."""
        await super().startup(sockets)
        self._on_started()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Ends at SIGTERM and SIGINT, and at the second SIGINT at once.

        uvicorn's own would let the process die of the signal after all is done.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self.stop)
        loop.add_signal_handler(signal.SIGINT, self._interrupt)
        yield

    def stop(self) -> None:
        """Starts the shutdown; called in the server's loop."""
        if not self.should_exit:
            self.should_exit = True
            self._worker.close()
            asyncio.get_running_loop().call_later(self._grace, self._worker.abandon)

    def _interrupt(self) -> None:
        self.force_exit = self.should_exit
        self.stop()


def bind(host: str, port: int) -> socket.socket:
    """A socket at an address, which doesn't listen yet.

    Raises:
      UsageError: the address can't be had.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        bound = socket.socket(family, kind, protocol)
        # So that a server can be started where another has just ended.
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except (OSError, OverflowError, ValueError) as error:
        raise UsageError(f"can't serve on {host} port {port}: {error}") from error
    return bound


def address_of(bound: socket.socket) -> str:
    """The URL of a socket."""
    host, port = bound.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def serve(server: Server, worker: Worker, bound: socket.socket) -> None:
    """Serves until a signal ends it."""
    server.run(sockets=[bound])
    worker.close()
    worker.abandon()
    if not worker.join(LAST_SECONDS):
        # A beam search is still on the device and can't be stopped. The interpreter must not tear
        # down what it uses, and there is nothing left to do.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)
