"""What a run tells of itself while it goes on: to people, and in its metrics."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence

import jax

from glm_jax.checkpoints.async_save import FinishedSave
from glm_jax.model import GLMConfig
from glm_jax.model.flops import Chip, model_flops_utilisation
from glm_jax.train.evaluate import Evaluation
from glm_jax.train.metrics import MetricsWriter, ProgressLine


class RunReporter:
    """Tells how training, evaluation and saving go; process 0 alone writes metrics.

    The kinds of records are "train", "validation" and "save".
    """

    def __init__(
        self,
        run_folder: str | os.PathLike[str],
        first_step: int,
        line: ProgressLine,
        utilisation: Callable[[float], float | None],
    ):
        """Args:
        run_folder: where the metrics go.
        first_step: where the run goes on; metrics beyond are forgotten.
        line: what people see.
        utilisation: from tokens per second to the share of the chips' peak, None if unknown.
        """
        writing = jax.process_index() == 0
        self._writer = MetricsWriter(run_folder, first_step) if writing else None
        self._line = line
        self._utilisation = utilisation

    def __enter__(self) -> RunReporter:
        return self

    def __exit__(self, *_error) -> None:
        if self._writer:
            self._writer.close()

    def train(self, step: int, metrics: dict[str, float]) -> None:
        """Writes a step's metrics, with the share of the chips' peak where that is known."""
        speed = metrics.get("tokens_per_second")
        utilisation = None if speed is None else self._utilisation(speed)
        if utilisation is not None:
            metrics = metrics | {"model_flops_utilisation": utilisation}
        self._write("train", step, metrics)

    def validation(self, step: int, evaluation: Evaluation, seconds: float) -> None:
        """What an evaluation found, and how long training stood still for it."""
        self._write("validation", step, evaluation.metrics() | {"seconds": seconds})
        self._line.say(f"step {step}: validation {evaluation.describe()}")

    def saves(self, finished: Iterable[FinishedSave]) -> None:
        """What saves have cost, now that they are complete."""
        for save in finished:
            seconds = {
                "blocked_seconds": save.blocked_seconds,
                "complete_seconds": save.complete_seconds,
            }
            self._write("save", save.step, seconds)

    def left_out(self, step: int) -> None:
        """A save that was due, while the one before was still under way."""
        self._line.say(
            f"step {step}: no checkpoint, for the one before is still being written; "
            "checkpoint.every asks for more than the disk can take"
        )

    def _write(self, kind: str, step: int, values: dict[str, float]) -> None:
        if self._writer:
            self._writer.write(kind, step, values)


def utilisation_of(
    model: GLMConfig, sequence_length: int, chips: Sequence[Chip], logit_fraction: float
) -> Callable[[float], float | None]:
    """From tokens per second to the share of the chips' peak, None where that is not known.

    Arguments as in `model_flops_utilisation`.
    """
    return lambda speed: model_flops_utilisation(
        model, sequence_length, speed, chips, logit_fraction
    )
