"""Starts runs of `glm-jax` from a process that has imported already what they need.

Imports take longer than all else that a small run does before its first step. The server imports
once, and forks a process for every run. It has no threads of its own and opens no device before: a
process that has opened one can't be forked.

The server runs as `python -m glm_jax.cli.fork_server`, and ends with its connection; its runs
don't. `glm_jax.sweeps.prepared` is the other end.
"""

from __future__ import annotations

import json
import os
import select
import socket
import sys
from collections.abc import Mapping, Sequence
from typing import Any

READY = {"ready": True}
MAX_REQUEST = 1 << 17  # bytes
NUM_STREAMS = 3


def serve(connection: socket.socket) -> list[str]:
    """Forks a process for every request until the connection ends.

    A request is a message with the arguments of `glm-jax`, variables of the environment and CPU
    cores, and the standard streams. It is answered by the process's number, and later, when the
    process has ended, by its exit code.

    Returns:
      The arguments, in the new process.

    Raises:
      SystemExit: in the server, at the end of the connection.
    """
    running: dict[int, int] = {}
    while True:
        readable = select.select([connection, *running], [], [])[0]
        for descriptor in running.keys() & set(readable):
            process = running.pop(descriptor)
            os.close(descriptor)
            code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
            send(connection, {"process": process, "code": code})
        if connection not in readable:
            continue
        message, streams, _, _ = socket.recv_fds(connection, MAX_REQUEST, NUM_STREAMS)
        if not message:
            raise SystemExit(0)
        process = os.fork()
        if not process:
            connection.close()
            for descriptor in running:
                os.close(descriptor)
            return become(json.loads(message), streams)
        for stream in streams:
            os.close(stream)
        running[os.pidfd_open(process)] = process
        send(connection, {"process": process})


def become(request: Mapping[str, Any], streams: Sequence[int]) -> list[str]:
    """Makes this new process the one that was asked for; returns its arguments.

    It waits for a byte on its standard input, and ends if there is none, as the driver is gone.
    """
    os.setsid()
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.environ.update(request["environment"])
    if request["cores"]:
        os.sched_setaffinity(0, request["cores"])
    if not os.read(0, 1):
        os._exit(1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    sys.argv = ["glm-jax", *request["arguments"]]
    return sys.argv[1:]


def send(connection: socket.socket, message: Mapping[str, Any]) -> None:
    """Sends a message; the server ends where no one is left to read it."""
    try:
        connection.sendall(json.dumps(message).encode())
    except OSError:
        raise SystemExit(0) from None
