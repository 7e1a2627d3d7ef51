"""Watches the processes of a run, so that none waits for one that is lost.

Every process but 0 keeps one connection to process 0, and both ends send a heartbeat every few
seconds. A process is lost when its connection closes before it reports that it is done, or when
its heartbeats stop: process 0 informs the others, and each ends with a sentence that names it.
JAX's own heartbeats need longer, and end in an abort that names no host.

A process that is done is watched until all are: JAX's own shutdown waits half a minute for the
last, and aborts the others when that takes longer.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from typing import Any, NoReturn

from glm_jax.errors import RunError, UsageError

HEARTBEAT_SECONDS = 2.0
# Without a heartbeat for so long, a process is lost. Work that holds Python's lock delays them.
SILENCE_SECONDS = 30.0
POLL_SECONDS = 0.2
# How long a process that fails waits for the report that another one is the cause.
CAUSE_SECONDS = 6.0
# How long a process that learns of a failure waits: it may be about to report the same itself.
FAILURE_SECONDS = 3.0
# How long a process that ends tries to write why, to an output that nothing may be reading.
OUTPUT_SECONDS = 5.0
MAX_MESSAGE_BYTES = 65536
# Errors that are a process's own unless they have a cause; any other, and what is caused by one
# (a save that fails), may be how the loss of another shows itself.
EXIT_CODES = {RunError: 1, UsageError: 2, KeyboardInterrupt: 130}


class Peer:
    """Another process of the run, and the connection to it, which carries JSON messages."""

    def __init__(self, connection: Connection, process: int, host: str, num_processes: int):
        """Args: the connection; number, host and --num_processes of the process at its other end.

        The connection has been authenticated.
        """
        self.connection = connection
        self.process = process
        self.host = host
        self.num_processes = num_processes
        self.last_message = time.monotonic()

    def send(self, message: Mapping[str, Any]) -> None:
        """Sends a message; a broken connection is found when receiving."""
        with suppress(OSError):
            self.connection.send_bytes(json.dumps(message).encode())

    def receive(self) -> dict[str, Any]:
        """Waits for a message.

        Raises:
          OSError, EOFError: the connection is broken or closed.
          ValueError: it is not JSON.
        """
        message = json.loads(self.connection.recv_bytes(MAX_MESSAGE_BYTES))
        self.last_message = time.monotonic()
        return message


def end_process(sentence: str, code: int) -> NoReturn:
    """Ends this process at once: threads that wait for a lost one would keep it alive."""
    # A full pipe, or a thread that waits for one with the lock of the output, blocks for ever.
    limit = threading.Timer(OUTPUT_SECONDS, os._exit, [code])
    limit.daemon = True
    limit.start()
    try:
        print(f"glm-jax: {sentence}", file=sys.stderr, flush=True)
        sys.stdout.flush()
    finally:
        os._exit(code)  # even if the output is closed


class Peers:
    """The other processes of a run; while it is entered, losing one ends this process with 1."""

    def __init__(
        self,
        peers: Mapping[int, Peer],
        process_id: int,
        *,
        silence: float = SILENCE_SECONDS,
        on_end: Callable[[str, int], Any] = end_process,
    ):
        """Args:
        peers: by process number.
        process_id: this process's own number.
        silence: seconds without a heartbeat after which a process is lost.
        on_end: called with a sentence and an exit code when this process has to end.
        """
        self._peers = dict(peers)
        self._process_id = process_id
        self._silence = silence
        self._on_end = on_end
        self._not_done = set(self._peers)
        self._closing = threading.Event()
        self._ended = threading.Event()
        self._failed = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        self._abort_handler = _ABORT_HANDLER(self._aborted)
        self._previous_handler: int | None = None

    def __enter__(self) -> Peers:
        for peer in self._peers.values():
            peer.last_message = time.monotonic()
        self._thread.start()
        # JAX's coordination service aborts a process that has lost process 0, within moments.
        handler = ctypes.cast(self._abort_handler, ctypes.c_void_p).value
        self._previous_handler = _C_SIGNAL(signal.SIGABRT, handler)
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if error is None:
            self._wait_until_all_are_done()
        else:
            self._fail(error)
        self._closing.set()
        self._thread.join()
        _C_SIGNAL(signal.SIGABRT, self._previous_handler)
        if error is None and self._process_id == 0:
            self._broadcast({"done": True})
        for peer in self._peers.values():
            peer.connection.close()

    def _wait_until_all_are_done(self) -> None:
        """Process 0 answers that all are done, and watches those that wait for it until then."""
        if self._process_id != 0:
            self._broadcast({"done": True})
        while self._not_done and not self._ended.is_set():
            self._ended.wait(POLL_SECONDS / 4)

    def _fail(self, error: BaseException) -> None:
        """Ends this process for its own error, unless that comes from the loss of another."""
        sentence, code = str(error), EXIT_CODES.get(type(error))
        foreign = code is None or error.__cause__ is not None
        if foreign and self._ended.wait(CAUSE_SECONDS):
            return
        if code is None:
            traceback.print_exception(error)
            sentence, code = f"{type(error).__name__}: {error}", 1
        sentence = sentence.strip() or "interrupted"
        host = socket.gethostname()
        # The others send the message back, and that must not take this process's own code.
        self._failed.set()
        self._broadcast({"failed": sentence, "process": self._process_id, "host": host})
        if self._process_id == 0:
            self._wait_until_all_have_ended()
        self._end(sentence, code)

    def _wait_until_all_have_ended(self) -> None:
        """Lets the others report the failure: JAX aborts them once process 0 has ended."""
        deadline = time.monotonic() + 2 * FAILURE_SECONDS
        while self._peers and time.monotonic() < deadline and not self._ended.is_set():
            self._ended.wait(POLL_SECONDS / 4)

    def _watch(self) -> None:
        last_heartbeat = 0.0
        while not self._closing.is_set():
            if time.monotonic() - last_heartbeat >= HEARTBEAT_SECONDS:
                last_heartbeat = time.monotonic()
                self._broadcast({"heartbeat": True})
            by_connection = {peer.connection: peer for peer in self._peers.values()}
            if not by_connection:
                self._closing.wait(POLL_SECONDS)
            for connection in wait(list(by_connection), timeout=POLL_SECONDS):
                self._receive(by_connection[connection])  # pyright: ignore[reportArgumentType]
            for peer in list(self._peers.values()):
                if time.monotonic() - peer.last_message > self._silence:
                    self._lost(peer, f"no heartbeat for {self._silence:g} s")

    def _receive(self, peer: Peer) -> None:
        """Handles a message."""
        try:
            message = peer.receive()
        except (OSError, EOFError, ValueError):
            del self._peers[peer.process]
            if not self._failed.is_set():
                self._lost(peer, "its connection has closed")
            return
        if self._failed.is_set():
            return  # this process reports its own failure
        if "done" in message:
            self._not_done.discard(peer.process)
            if self._process_id != 0:  # it is process 0's last message
                del self._peers[peer.process]
        elif "lost" in message:
            self._end(str(message["lost"]), 1)
        elif "failed" in message:
            self._broadcast(message)
            self._closing.wait(FAILURE_SECONDS)
            sentence = f"process {message['process']} on {message['host']} has failed"
            self._end(f"{sentence}: {message['failed']}", 1)

    def _lost(self, peer: Peer, why: str) -> None:
        sentence = (
            f"process {peer.process} on {peer.host} is lost ({why}); the run can't continue "
            "without it: start it again to resume from its newest checkpoint"
        )
        self._broadcast({"lost": sentence})
        self._end(sentence, 1)

    def _broadcast(self, message: Mapping[str, Any]) -> None:
        for peer in list(self._peers.values()):
            peer.send(message)

    def _end(self, sentence: str, code: int) -> None:
        if not self._ended.is_set():
            self._ended.set()
            self._on_end(sentence, code)

    def _aborted(self, _number: int) -> None:
        """What a thread that aborts does first: it leaves the sentence to the watching thread."""
        if self._ended.wait(CAUSE_SECONDS):
            time.sleep(CAUSE_SECONDS)  # it is ending this process
        _C_SIGNAL(signal.SIGABRT, signal.SIG_DFL)


# A handler set by Python's `signal` runs on the main thread, which may never come to it.
_ABORT_HANDLER = ctypes.CFUNCTYPE(None, ctypes.c_int)
_C_SIGNAL = ctypes.CDLL(None).signal
_C_SIGNAL.restype = ctypes.c_void_p
_C_SIGNAL.argtypes = (ctypes.c_int, ctypes.c_void_p)
