"""A folder that one process uses at a time, on whatever it is stored.

The lock is a small file in the folder, which names its holder and is rewritten every few seconds.
It is taken, renewed and removed by compare-and-swap, so that of two processes exactly one has it. A
holder that has died
blocks nobody: on its own machine its process is looked up, and elsewhere the file stops changing.
Clocks are not compared: those of two hosts may differ by hours.
"""

from __future__ import annotations

import dataclasses
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import suppress

from etils import epath

from glm_jax.errors import RunError
from glm_jax.io.paths import is_url
from glm_jax.io.processes import is_running, machine, start_of_this_process
from glm_jax.io.swap_file import open_swap_file

LOCK_FILE = "lock.json"
PERIOD_SECONDS = 5.0
# A lock on another machine that has not been rewritten for so long is that of a lost process.
SILENCE_SECONDS = 30.0


@dataclasses.dataclass(frozen=True)
class Holder:
    """The process that has a lock.

    Attributes:
      host: name of its host.
      process: its number on that host.
      since: when it took the lock, in seconds since 1970 by its host's clock.
      machine: identifies the system that the number belongs to.
      started: when the process was started, in a form that only equality has a meaning of.
      folder: identifies the locked folder on that machine, "" where it can't be.
      token: distinguishes this lock from every other.
    """

    host: str
    process: int
    since: float
    machine: str
    started: str
    folder: str
    token: str

    def describe(self) -> str:
        """Which process it is, and since when."""
        since = time.strftime("%Y-%m-%d %H:%M:%S %Z", time.localtime(self.since))
        return f"process {self.process} on {self.host} since {since}"


class FolderLock:
    """Holds the lock of a folder while it is entered."""

    def __init__(
        self,
        folder: epath.Path,
        say: Callable[[str], None] = lambda line: None,
        *,
        in_use: str = "",
        period: float = PERIOD_SECONDS,
        silence: float = SILENCE_SECONDS,
    ):
        """Args:
        folder: an absolute path or URL; made where it is missing.
        say: reports that a lock of another machine is being watched, which takes a while.
        in_use: how the refusal begins, before the holder; "FOLDER is in use by" by default.
        period: seconds between renewals.
        silence: seconds without one after which another machine's lock is void.
        """
        self._folder = folder
        self._say = say
        self._in_use = in_use or f"{folder} is in use by"
        self._period = period
        self._silence = silence
        self._generation = b""
        self._taken_by: str | None = None
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._renew, name="lock", daemon=True)

    def __enter__(self) -> FolderLock:
        """Takes the lock.

        Raises:
          RunError: another process has it, or the folder can't be written to.
        """
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._file = open_swap_file(self._folder / LOCK_FILE)
            self._holder = _this_process(self._folder)
            self._acquire()
        except (OSError, ValueError) as error:
            raise RunError(f"{self._folder} can't be written to: {_reason(error)}") from error
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._closing.set()
        self._thread.join()
        # Removing what is missing would make the folder again.
        if (self._folder / LOCK_FILE).exists():
            with suppress(
                OSError, ValueError
            ):  # one that stays is void when this process has ended
                self._file.write(None, self._generation)

    def check(self) -> None:
        """Makes sure that the lock is still held.

        Raises:
          RunError: this process stood still for so long that another one took it for lost.
        """
        if self._taken_by is not None:
            raise RunError(
                f"{self._folder} was taken over by {self._taken_by}, since this process did not "
                f"renew its lock for {self._silence:g} s"
            )

    def _acquire(self) -> None:
        while True:
            content, generation = self._file.read()
            if content is not None and self._is_held(content, generation):
                holder = _read_holder(content)
                by = holder.describe() if holder else "another process"
                raise RunError(f"{self._in_use} {by}; wait for it, or end it first")
            written = self._file.write(self._content(), generation)
            if written is not None:
                self._generation = written
                return

    def _is_held(self, content: bytes, generation: bytes) -> bool:
        """Whether the holder of a lock is alive."""
        holder = _read_holder(content)
        if holder and holder.machine == self._holder.machine:
            if not is_running(holder.process, holder.started):
                return False  # it has ended; the number may be that of another process by now
            if holder.folder:
                return holder.folder == self._holder.folder  # else it came with a copy
        by = holder.describe() if holder else "an unknown process"
        self._say(
            f"{self._folder} is locked by {by}; watching for up to {self._silence:g} s whether "
            "that process is alive"
        )
        return self._changes(generation)

    def _changes(self, generation: bytes) -> bool:
        """Waits for the lock to be renewed; False if it is removed, or is not."""
        deadline = time.monotonic() + self._silence
        while time.monotonic() < deadline:
            time.sleep(min(self._period, self._silence) / 5)
            content, found = self._file.read()
            if found != generation:
                return content is not None
        return False

    def _renew(self) -> None:
        while not self._closing.wait(self._period):
            with suppress(OSError, ValueError):  # a full disk is reported when a state is saved
                self._renew_once()

    def _renew_once(self) -> None:
        if not is_url(self._folder) and not self._folder.is_dir():
            return  # it was removed, and writing would make it again
        written = self._file.write(self._content(), self._generation)
        if written is None:  # removed, or taken over
            content, generation = self._file.read()
            holder = _read_holder(content) if content is not None else self._holder
            if holder != self._holder:
                self._taken_by = holder.describe() if holder else "another process"
                self._closing.set()
                return
            written = self._file.write(self._content(), generation)
        if written is not None:
            self._generation = written

    def _content(self) -> bytes:
        record = dataclasses.asdict(self._holder) | {"renewed": time.time()}
        return (json.dumps(record) + "\n").encode()


def local_holder(folder: epath.Path) -> str | None:
    """The running process of this machine that has a folder's lock; None where there is none."""
    try:
        holder = _read_holder((folder / LOCK_FILE).read_bytes())
    except OSError:
        return None
    if holder is None or holder.machine != machine():
        return None
    return holder.describe() if is_running(holder.process, holder.started) else None


def _this_process(folder: epath.Path) -> Holder:
    identity = ""
    if not is_url(folder):
        status = os.stat(folder)
        identity = f"{status.st_dev}:{status.st_ino}"
    return Holder(
        host=socket.gethostname(),
        process=os.getpid(),
        since=time.time(),
        machine=machine(),
        started=start_of_this_process(),
        folder=identity,
        token=uuid.uuid4().hex,
    )


def _read_holder(content: bytes) -> Holder | None:
    """Who wrote a lock, None where that can't be read."""
    try:
        record = json.loads(content)
        record.pop("renewed")
        holder = Holder(**record)
    except (ValueError, TypeError, KeyError, AttributeError):
        return None
    numbers = isinstance(holder.process, int) and isinstance(holder.since, float)
    return holder if numbers else None


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).replace("\0", "").split())
