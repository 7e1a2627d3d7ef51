"""Settings of a server."""

from __future__ import annotations

import dataclasses
import math

from glm_jax.errors import UsageError


@dataclasses.dataclass(frozen=True)
class ServeSettings:
    """Limits of a server.

    Attributes:
      rows: texts that are filled concurrently; also the maximum samples per request.
      max_slots: maximum tokens of a text with its blanks; rounded up to 1024, 2048, 4096, ...
      queue: requests that may wait for rows; those beyond are refused.
      max_body: maximum size of a request's body in bytes.
      max_beams: maximum beams per request.
      max_answers: maximum answers to score per request.
      top: number of most probable tokens kept for every position.
      grace: seconds that running requests have to end when the server is stopped.

    Raises:
      UsageError: a field is out of its range.
    """

    rows: int = 8
    max_slots: int = 1024
    queue: int = 64
    max_body: int = 1 << 18
    max_beams: int = 8
    max_answers: int = 64
    top: int = 5
    grace: float = 30.0

    def __post_init__(self) -> None:
        for name in ("rows", "max_slots", "queue", "max_body", "max_beams", "max_answers"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} is {getattr(self, name)}, but must be 1 or more")
        if not 0 <= self.top <= 100:
            raise UsageError(f"top is {self.top}, but must be from 0 to 100")
        if not (self.grace >= 0 and math.isfinite(self.grace)):
            raise UsageError(f"grace is {self.grace}, but must be 0 or more seconds")
