"""How many programs are compiled, and how long that takes."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator

import jax

# What JAX records whenever the compiler has made a program, or a cache on disk has given it.
_COMPILED = "/jax/core/compile/backend_compile_duration"


@dataclasses.dataclass
class Compilations:
    """What has been compiled so far, by everything that runs in this process.

    Attributes:
      count: programs.
      seconds: the time that they took.
    """

    count: int = 0
    seconds: float = 0.0


@contextlib.contextmanager
def counted_compilations() -> Iterator[Compilations]:
    """Counts the programs that are compiled while it is entered, in whatever thread."""
    compilations = Compilations()

    def note(event: str, duration_secs: float, **kwargs: str | int) -> None:
        del kwargs
        if event == _COMPILED:
            compilations.count += 1
            compilations.seconds += duration_secs

    jax.monitoring.register_event_duration_secs_listener(note)
    try:
        yield compilations
    finally:
        jax.monitoring.unregister_event_duration_listener(note)
