"""The drivers of a study: who they are, and whether they are still there.

Every driver rewrites a record in the study every few seconds. One of the same machine is looked up
among its processes; one elsewhere is lost when its record has not changed for a while. Clocks are
not compared.
"""

from __future__ import annotations

import os
import socket
import time
import uuid
from collections.abc import Callable

from optuna.storages import BaseStorage

from glm_jax.io.processes import is_running, machine, start_of_this_process

PERIOD_SECONDS = 10.0
SILENCE_SECONDS = 90.0
_PREFIX = "driver:"


class Drivers:
    """This driver's record in a study, and those of the others."""

    def __init__(
        self,
        storage: BaseStorage,
        study_id: int,
        *,
        silence: float = SILENCE_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ):
        """Args:
        storage: where the study is.
        study_id: its number there.
        silence: seconds without a change after which another machine's driver is lost.
        clock: seconds.
        """
        self.token = uuid.uuid4().hex[:12]
        self._storage = storage
        self._study_id = study_id
        self._silence = silence
        self._clock = clock
        self._beats = 0
        self._next_beat = float("-inf")
        self._machine = machine()
        # When this driver first saw the last beat of every other one.
        self._seen: dict[str, tuple[int, float]] = {}

    def beat(self) -> None:
        """Shows that this driver is alive, where that is due."""
        if self._clock() < self._next_beat:
            return
        self._beats += 1
        self._next_beat = self._clock() + PERIOD_SECONDS
        record = {
            "host": socket.gethostname(),
            "process": os.getpid(),
            "machine": self._machine,
            "started": start_of_this_process(),
            "beats": self._beats,
        }
        self._storage.set_study_user_attr(self._study_id, f"{_PREFIX}{self.token}", record)

    def is_alive(self, token: str) -> bool:
        """Whether a driver is still there."""
        if token == self.token:
            return True
        record = self._storage.get_study_user_attrs(self._study_id).get(f"{_PREFIX}{token}")
        if record is None:
            return False
        if record["machine"] == self._machine:
            return is_running(record["process"], record["started"])
        beats, since = self._seen.get(token, (-1, 0.0))
        if beats != record["beats"]:
            self._seen[token] = (record["beats"], self._clock())
            return True
        return self._clock() - since < self._silence

    def describe(self, token: str) -> str:
        """Where a driver runs."""
        record = self._storage.get_study_user_attrs(self._study_id).get(f"{_PREFIX}{token}")
        return f"process {record['process']} on {record['host']}" if record else "a lost driver"
