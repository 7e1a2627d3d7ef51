"""Values on which all processes of a run agree; a single process uses its own."""

from __future__ import annotations

import jax
import numpy as np
from jax.experimental import multihost_utils

# Size of the array in which a sentence is gathered.
SENTENCE_BYTES = 1024


def any_process(value: bool) -> bool:
    """Whether it is true in any process; all must call."""
    if jax.process_count() == 1:
        return value
    return bool(np.any(multihost_utils.process_allgather(np.asarray(value))))


def first_message(sentence: str | None) -> str | None:
    """The sentence of the first process that has one; all must call."""
    if jax.process_count() == 1:
        return sentence
    buffer = np.zeros(SENTENCE_BYTES, np.uint8)
    data = (sentence or "").encode()[:SENTENCE_BYTES]
    buffer[: len(data)] = np.frombuffer(data, np.uint8)
    for row in np.asarray(multihost_utils.process_allgather(buffer)):
        if row.any():
            return bytes(row).rstrip(b"\0").decode(errors="replace")
    return None


def wait_for_all(point: str) -> None:
    """Returns when every process has reached the same point."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(point)
