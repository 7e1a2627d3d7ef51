"""Watching over the processes of a run, so that none waits for one that is lost.

Every process but 0 keeps one connection to process 0. Both ends send a beat every few seconds. A
connection that closes without a farewell, or stays silent too long, is a lost process: process 0
tells the others, and each ends with a sentence that names it.

A process that has done its work says farewell and is watched on until all have: JAX's own shutdown
gives the last to come half a minute, and aborts the others when that has more to do.
"""

from __future__ import annotations

import ctypes
import json
import os
import selectors
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, NoReturn

from glm_jax.errors import RunError, UsageError

BEAT_SECONDS = 2.0
# Silence after which a process counts as lost. Long work that keeps Python's lock delays beats.
SILENCE_SECONDS = 30.0
# How long a process that fails waits for the news that another one is the cause.
NEWS_SECONDS = 6.0
# How long a process waits with another's failure, for it may be about to tell the same itself.
FAILURE_SECONDS = 3.0
# Errors that are a process's own unless they have a cause; any other, and what is caused by one
# (a save that fails), may be how the loss of another shows itself.
EXIT_CODES = {RunError: 1, UsageError: 2, KeyboardInterrupt: 130}


class Connection:
    """Lines of JSON between two processes of a run."""

    def __init__(self, end: socket.socket, process: int, host: str, num_processes: int):
        """Args: the socket, then number and host of the process at its other end."""
        self.end = end
        self.process = process
        self.host = host
        self.num_processes = num_processes
        self.heard = time.monotonic()
        self._unread = b""

    def send(self, message: Mapping[str, Any]) -> None:
        """Sends a message; what no longer arrives is found out when listening."""
        with suppress(OSError):
            self.end.sendall(json.dumps(message).encode() + b"\n")

    def receive(self) -> list[dict[str, Any]]:
        """Waits for messages; none when the connection has closed.

        Raises:
          OSError: the connection is broken, or the socket's timeout has passed.
        """
        while True:
            data = self.end.recv(65536)
            if not data:
                return []
            self.heard = time.monotonic()
            *lines, self._unread = (self._unread + data).split(b"\n")
            if lines:
                return [json.loads(line) for line in lines]


def end_process(sentence: str, code: int) -> NoReturn:
    """Ends this process at once: threads that wait for a lost one would never let it go."""
    print(f"glm-jax: {sentence}", file=sys.stderr, flush=True)
    sys.stdout.flush()
    os._exit(code)


class Peers:
    """The other processes of a run; while it is entered, losing one ends this process with 1."""

    def __init__(
        self,
        connections: Mapping[int, Connection],
        process_id: int,
        *,
        silence: float = SILENCE_SECONDS,
        on_end: Callable[[str, int], Any] = end_process,
    ):
        """Args:
        connections: by number of the process at their other end.
        process_id: this process's own number.
        silence: seconds without a beat after which a process counts as lost.
        on_end: called with a sentence and an exit code when this process is to end.
        """
        self._connections = dict(connections)
        self._process_id = process_id
        self._silence = silence
        self._on_end = on_end
        self._awaited = set(self._connections)
        self._closing = threading.Event()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="peers", daemon=True)
        self._abort_handler = _ABORT_HANDLER(self._aborted)
        self._previous_handler: int | None = None

    def __enter__(self) -> Peers:
        for connection in self._connections.values():
            connection.end.settimeout(BEAT_SECONDS)
            connection.heard = time.monotonic()
        self._thread.start()
        # JAX's coordination service aborts a process that has lost process 0, within moments.
        handler = ctypes.cast(self._abort_handler, ctypes.c_void_p).value
        self._previous_handler = _C_SIGNAL(signal.SIGABRT, handler)
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if error is None:
            self._part()
        else:
            self._fail(error)
        self._closing.set()
        self._thread.join()
        _C_SIGNAL(signal.SIGABRT, self._previous_handler)
        if error is None and self._process_id == 0:
            self._tell_all({"bye": True})
        for connection in self._connections.values():
            connection.end.close()

    def _part(self) -> None:
        """Says that the work is done, and waits until it is in all processes.

        Process 0 hears it of all before it tells it, and goes on to watch those who wait.
        """
        if self._process_id != 0:
            self._tell_all({"bye": True})
        while self._awaited and not self._ended.is_set():
            self._ended.wait(0.05)

    def _fail(self, error: BaseException) -> None:
        """Ends this process for its own error, unless that comes from the loss of another."""
        sentence, code = str(error), EXIT_CODES.get(type(error))
        foreign = code is None or error.__cause__ is not None
        if foreign and self._ended.wait(NEWS_SECONDS):
            return
        if code is None:
            traceback.print_exception(error)
            sentence, code = f"{type(error).__name__}: {error}", 1
        sentence = sentence.strip() or "interrupted"
        self._tell_all(
            {"failed": sentence, "process": self._process_id, "host": socket.gethostname()}
        )
        self._end(sentence, code)

    def _watch(self) -> None:
        selector = selectors.DefaultSelector()
        for connection in self._connections.values():
            selector.register(connection.end, selectors.EVENT_READ, connection)
        last_beat = 0.0
        while not self._closing.is_set():
            if time.monotonic() - last_beat >= BEAT_SECONDS:
                last_beat = time.monotonic()
                self._tell_all({"beat": True})
            for key, _ in selector.select(timeout=0.2):
                if not self._listen(key.data):
                    selector.unregister(key.data.end)
                    del self._connections[key.data.process]
            for connection in list(self._connections.values()):
                if time.monotonic() - connection.heard > self._silence:
                    self._lost(connection, f"nothing was heard of it for {self._silence:g} s")
        selector.close()

    def _listen(self, connection: Connection) -> bool:
        """Handles what a connection holds; returns whether to go on listening."""
        try:
            messages = connection.receive()
        except TimeoutError:
            return True
        except (OSError, ValueError):
            messages = []
        if not messages:
            self._lost(connection, "its connection has closed")
            return False
        for message in messages:
            if "bye" in message:
                self._awaited.discard(connection.process)
                if self._process_id != 0:
                    return False  # process 0 has told it last, and closes the connection
            if "lost" in message:
                self._end(str(message["lost"]), 1)
            if "failed" in message:
                self._tell_all(message)
                self._closing.wait(FAILURE_SECONDS)
                sentence = f"process {message['process']} on {message['host']} has failed"
                self._end(f"{sentence}: {message['failed']}", 1)
        return True

    def _lost(self, connection: Connection, why: str) -> None:
        sentence = (
            f"process {connection.process} on {connection.host} is lost ({why}); the run can't go "
            "on without it, and will go on from its newest checkpoint when it is started again"
        )
        self._tell_all({"lost": sentence})
        self._end(sentence, 1)

    def _tell_all(self, message: Mapping[str, Any]) -> None:
        for connection in list(self._connections.values()):
            connection.send(message)

    def _end(self, sentence: str, code: int) -> None:
        if not self._ended.is_set():
            self._ended.set()
            self._on_end(sentence, code)

    def _aborted(self, _number: int) -> None:
        """What a thread that aborts does first: it leaves the sentence to the watching thread."""
        if self._ended.wait(NEWS_SECONDS):
            time.sleep(NEWS_SECONDS)  # it is ending this process
        _C_SIGNAL(signal.SIGABRT, signal.SIG_DFL)


# A handler set by Python's `signal` runs on the main thread, which may never come to it.
_ABORT_HANDLER = ctypes.CFUNCTYPE(None, ctypes.c_int)
_C_SIGNAL = ctypes.CDLL(None).signal
_C_SIGNAL.restype = ctypes.c_void_p
_C_SIGNAL.argtypes = (ctypes.c_int, ctypes.c_void_p)
