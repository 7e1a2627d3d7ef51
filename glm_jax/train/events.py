"""TensorBoard's events of a run.

Written here rather than by tensorboardX's own writer, which runs in a thread: on a full disk that
thread dies with a traceback, and the next event waits for it forever. It also writes to local paths
and two kinds of URLs only.
"""

from __future__ import annotations

import os
import socket
import struct
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from glm_jax.io.append import AppendedFile


@contextmanager
def without_torch() -> Iterator[None]:
    """Hides PyTorch from what is imported in this block, unless it is imported already."""
    if "torch" in sys.modules:
        yield
        return
    sys.modules["torch"] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules["torch"]


# tensorboardX imports PyTorch where it is installed, for seconds, and does without it elsewhere.
with without_torch():
    from tensorboardX.proto.event_pb2 import Event, SessionLog
    from tensorboardX.record_writer import masked_crc32c
    from tensorboardX.summary import scalar

FILE_VERSION = "brain.Event:2"


class EventsFile:
    """A new file of events in a folder, by path or URL."""

    def __init__(self, folder: str | os.PathLike[str], first_step: int):
        """Starts the file; TensorBoard drops events of earlier files from `first_step` on.

        Raises:
          OSError: it can't be written.
        """
        name = f"events.out.tfevents.{time.time():010.0f}.{socket.gethostname()}.{os.getpid()}"
        start = _record(file_version=FILE_VERSION)
        start += _record(step=first_step, session_log=SessionLog(status=SessionLog.START))
        self._file = AppendedFile(f"{os.fspath(folder)}/{name}", start)

    def add_scalar(self, name: str, value: float, step: int) -> None:
        """Appends one value.

        Raises:
          OSError: it can't be written.
        """
        self._file.append(_record(step=step, summary=scalar(name, value)))

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


def _record(**fields: Any) -> bytes:
    """An event as a record of a TFRecord file: length, data, and the checksum of each."""
    data = Event(wall_time=time.time(), **fields).SerializeToString()
    length = struct.pack("<Q", len(data))
    checksums = (struct.pack("<I", masked_crc32c(part)) for part in (length, data))
    return length + next(checksums) + data + next(checksums)
