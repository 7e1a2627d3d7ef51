"""Whether a process of this machine is still the one that left something behind."""

from __future__ import annotations

import os
import socket
import uuid
from pathlib import Path

PROC = Path("/proc")


def machine() -> str:
    """Identifies what process numbers belong to: this boot of this system, and its container."""
    try:
        boot = (PROC / "sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink(PROC / 'self/ns/pid')}"
    except OSError:  # not Linux
        return f"{socket.gethostname()} {uuid.getnode():x}"


def start_of_this_process() -> str:
    """When this process was started, in a form that only equality has a meaning of.

    Process numbers are used again: a number and its start together are one process.
    """
    return start_of("self")


def start_of(process: int | str) -> str:
    """When a process of this machine was started, as its own `start_of_this_process`."""
    found = _state_and_start(str(process))
    return found[1] if found else ""


def is_running(process: int, started: str) -> bool:
    """Whether a process of this machine is still there, rather than another of its number.

    One that has ended, and that its parent has not waited for yet, isn't.

    Args:
      process: its number.
      started: its own `start_of_this_process`.
    """
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        pass  # another user's
    found = _state_and_start(str(process))
    # Where nothing more can be read, the number has to do.
    return found is None or (found[0] not in "ZX" and found[1] == started)


def _state_and_start(process: str) -> tuple[str, str] | None:
    """The state of a process and the tick that it was started at; None where these are hidden."""
    try:
        fields = (PROC / process / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return fields[0], fields[19]
