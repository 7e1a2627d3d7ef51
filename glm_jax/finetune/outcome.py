"""How a finetuning run ended."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any


@dataclasses.dataclass(frozen=True)
class FinetuneOutcome:
    """How a run ended.

    Attributes:
      steps: done.
      num_steps: of all epochs.
      results: what `results.json` has, None before the end.
      seed: the one that was stopped, of a run of several.
    """

    steps: int
    num_steps: int
    results: Mapping[str, Any] | None
    seed: int | None = None
