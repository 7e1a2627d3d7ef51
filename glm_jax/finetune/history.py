"""The evaluations of a run so far, and which of its checkpoints is the best."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from etils import epath

from glm_jax.io.files import write_file
from glm_jax.train.metrics import read_metrics

BEST_FILE = "best"
LAST_FILE = "last"


@dataclass
class History:
    """Evaluations on the dev split, in order.

    Attributes:
      metric: the one that decides; larger is better.
      evaluations: (step, its metrics).
    """

    metric: str
    evaluations: list[tuple[int, Mapping[str, float]]] = field(default_factory=list)

    @property
    def best(self) -> tuple[int, Mapping[str, float]] | None:
        """The first evaluation that no other exceeds."""
        return max(self.evaluations, key=self._quality, default=None)

    def _quality(self, evaluation: tuple[int, Mapping[str, float]]) -> float:
        """The metric; one that is not finite, which a metrics file has as null, is the worst."""
        value = evaluation[1][self.metric]
        return value if value is not None and math.isfinite(value) else -math.inf

    def has(self, step: int) -> bool:
        """Whether the parameters after a step have been evaluated."""
        return any(evaluated == step for evaluated, _ in self.evaluations)

    def best_step(self) -> int | None:
        """Its step."""
        return self.best[0] if self.best else None

    def since_best(self) -> int:
        """Evaluations after the best one."""
        steps = [step for step, _ in self.evaluations]
        return len(steps) - 1 - steps.index(self.best[0]) if self.best else 0


def read_history(folder: epath.Path, metric: str, last_step: int) -> History:
    """The evaluations up to a step, from the metrics file of a run folder."""
    records = [
        record
        for record in read_metrics(folder / "metrics.jsonl")
        if record["kind"] == "validation" and record["step"] <= last_step and metric in record
    ]
    known = ("step", "kind", "seconds")
    return History(
        metric,
        [
            (r["step"], {name: value for name, value in r.items() if name not in known})
            for r in records
        ],
    )


def write_pointers(folder: epath.Path, history: History, last_step: int) -> None:
    """Writes which checkpoints are the last and the best one, in their folder."""
    checkpoints = folder / "checkpoints"
    write_file(checkpoints / LAST_FILE, _json({"step": last_step}))
    if not history.best:
        (checkpoints / BEST_FILE).unlink(missing_ok=True)
    else:
        step, found = history.best
        write_file(checkpoints / BEST_FILE, _json({"step": step, "metrics": dict(found)}))


def best_step_of(folder: epath.Path) -> int | None:
    """The step that the pointer to the best checkpoint of a run folder names."""
    file = folder / "checkpoints" / BEST_FILE
    return json.loads(file.read_text())["step"] if file.is_file() else None


@dataclass(frozen=True)
class DevEvaluation:
    """What an evaluation found, as the reports take it."""

    found: Mapping[str, float]
    better: bool

    def metrics(self) -> Mapping[str, float]:
        """By name."""
        return self.found

    def describe(self) -> str:
        """One line for people."""
        shown = ", ".join(f"{name} {value:.4g}" for name, value in self.found.items())
        return f"{shown}{' (the best so far)' if self.better else ''}"


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=2) + "\n").encode()
