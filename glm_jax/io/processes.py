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


def start_of(process: int) -> str | None:
    """When a process was started, in a form that only equality has a meaning of.

    Process numbers are used again: a number and its start together are one process. None where
    there is no such process, or one that has ended and is only waited for.
    """
    if (PROC / "self/stat").exists():
        try:
            fields = (PROC / str(process) / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            return None
        return None if fields[0] in "ZX" else fields[19]
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass  # another user's
    return "running"
