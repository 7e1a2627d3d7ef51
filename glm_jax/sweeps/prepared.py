"""Processes that start without importing: the driver's end of `glm_jax.sweeps.fork_server`."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import IO, Any

from glm_jax.sweeps import fork_server

SERVER = (sys.executable, "-m", "glm_jax.cli.fork_server")
# How long a server that is ready may take to fork.
MAX_SECONDS = 10.0


class ForkServer:
    """A server of one command. It is of use from when it is ready until it or its driver ends."""

    def __init__(
        self, command: str, environment: Mapping[str, str], program: Sequence[str] = SERVER
    ):
        """Starts the server, and doesn't wait for it.

        Args:
          command: "pretrain" or "finetune".
          environment: of its processes.
          program: what the server is started by.
        """
        self._ready = False
        self._codes: dict[int, int] = {}
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._connection: socket.socket | None = ours
        with theirs:
            # A session of its own: Ctrl-C is for the driver.
            self._process = subprocess.Popen(
                [*program, str(theirs.fileno()), command],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                env=environment,
                start_new_session=True,
            )

    @property
    def number(self) -> int:
        """Of its process."""
        return self._process.pid

    @property
    def is_ready(self) -> bool:
        """Whether it can start processes now."""
        self._receive(0)
        return self._ready and self._connection is not None

    def start(
        self,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        cores: frozenset[int],
        streams: Sequence[IO[bytes]],
    ) -> int | None:
        """Starts `glm-jax` with some arguments; returns its number, None if the server has ended.

        Args:
          arguments: of the command line.
          environment: further variables.
          cores: that it runs on; empty for all.
          streams: standard input, a byte of which lets it run, output and errors.
        """
        request = {
            "arguments": list(arguments),
            "environment": dict(environment),
            "cores": sorted(cores),
        }
        message = json.dumps(request).encode()
        if self._connection is None or len(message) > fork_server.MAX_REQUEST:
            return None
        try:
            socket.send_fds(self._connection, [message], [stream.fileno() for stream in streams])
        except OSError:
            self.close()
            return None
        return self._receive(MAX_SECONDS)

    def code_of(self, process: int) -> int | None:
        """The exit code of a process that it has started; None where that is not known."""
        self._receive(0)
        return self._codes.get(process)

    @property
    def is_open(self) -> bool:
        """Whether exit codes may still come."""
        return self._connection is not None

    def close(self) -> None:
        """Ends the server; its processes continue."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _receive(self, seconds: float) -> int | None:
        """Reads what the server says, and returns the number of the process that it has started.

        Args:
          seconds: how long to wait for one; 0 for what is there already.
        """
        while self._connection is not None:
            self._connection.settimeout(seconds)
            try:
                received = self._connection.recv(fork_server.MAX_REQUEST)
            except (BlockingIOError, TimeoutError):
                if seconds:  # not in time
                    self.close()
                return None
            except OSError:
                received = b""
            if not received:
                self.close()
                self._process.poll()
                return None
            message: dict[str, Any] = json.loads(received)
            if message == fork_server.READY:
                self._ready = True
            elif "code" in message:
                self._codes[message["process"]] = message["code"]
            else:
                return message["process"]
        return None


def is_supported() -> bool:
    """Whether this system has what the server needs: Linux has."""
    return hasattr(os, "pidfd_open") and hasattr(socket, "send_fds")
