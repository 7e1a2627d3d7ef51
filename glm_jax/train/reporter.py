"""What a run reports while it runs: to people, and in its metrics."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

import jax

from glm_jax.errors import RunError
from glm_jax.model import GLMConfig
from glm_jax.model.flops import Chip, model_flops_utilisation
from glm_jax.train.metrics import MetricsWriter, ProgressLine, duration
from glm_jax.train.timer import Speed

if TYPE_CHECKING:
    from glm_jax.checkpoints.async_save import FinishedSave


@dataclasses.dataclass(frozen=True)
class ReporterConfig:
    """What the reports depend on.

    Attributes:
      num_steps: its last step.
      tokens_per_step: positions of a batch.
      max_skipped_steps: how many skipped updates it allows.
      utilisation: from tokens per second to the share of the chips' peak, None if unknown.
    """

    num_steps: int
    tokens_per_step: int
    max_skipped_steps: int
    utilisation: Callable[[float], float | None]


class Evaluated(Protocol):
    """What an evaluation found."""

    def metrics(self) -> Mapping[str, float]:
        """By name, for the metrics file."""
        ...

    def describe(self) -> str:
        """One line for people."""
        ...


class RunReporter:
    """Reports training, evaluations and saves; only process 0 writes metrics.

    The kinds of records are "train", "validation" and "save".
    """

    def __init__(
        self,
        run_folder: str | os.PathLike[str],
        first_step: int,
        skipped: int,
        line: ProgressLine,
        config: ReporterConfig,
    ):
        """Args:
        run_folder: where the metrics go.
        first_step: where the run starts or resumes; metrics of later steps are dropped.
        skipped: updates that were skipped before.
        line: what people see.
        config: of the run.
        """
        writing = jax.process_index() == 0
        self._writer = MetricsWriter(run_folder, first_step) if writing else None
        self._skipped = skipped
        self._line = line
        self._config = config

    def __enter__(self) -> RunReporter:
        return self

    def __exit__(self, *_error) -> None:
        if self._writer:
            self._writer.close()

    def report_step(
        self,
        step: int,
        metrics: dict[str, float],
        speed: Speed | None,
        seconds_per_step: float | None,
        *,
        logged: bool,
    ) -> None:
        """Shows the progress of a step, and writes its metrics where it is `logged`.

        Raises:
          RunError: its update was skipped, and is one more than allowed.
        """
        if metrics["skipped_steps"] > self._skipped:
            self._skipped = int(metrics["skipped_steps"])
            self._update_skipped(step, metrics)
        if metrics["target_overflow"]:
            self._line.say(
                f"step {step}: {metrics['target_overflow']:.0f} targets exceed the loss capacity; "
                "raise train.target_fraction"
            )
        if speed:
            tokens_per_second = self._config.tokens_per_step / speed.step_seconds
            metrics |= {
                "step_seconds": speed.step_seconds,
                "tokens_per_second": tokens_per_second,
                "data_wait": speed.data_wait,
            }
            if (utilisation := self._config.utilisation(tokens_per_second)) is not None:
                metrics["model_flops_utilisation"] = utilisation
        progress = progress_line(step, self._config.num_steps, metrics, seconds_per_step)
        self._line.show(progress, logged=logged)
        if logged:
            self._write("train", step, metrics)

    def report_evaluation(self, step: int, evaluation: Evaluated, seconds: float) -> None:
        """Reports an evaluation, and for how long it stopped training."""
        self._write("validation", step, {**evaluation.metrics(), "seconds": seconds})
        self._line.say(f"step {step}: validation {evaluation.describe()}")

    def report_saves(self, finished: Iterable[FinishedSave]) -> None:
        """Writes what saves have cost, now that they are complete."""
        for save in finished:
            seconds = {
                "blocked_seconds": save.blocked_seconds,
                "complete_seconds": save.complete_seconds,
            }
            self._write("save", save.step, seconds)

    def save_skipped(self, step: int) -> None:
        """Reports a save that was due while the previous one was still being written."""
        self._line.say(
            f"step {step}: checkpoint skipped, since the previous one is still being written; "
            "checkpoint.every asks for more than the disk can take"
        )

    def _update_skipped(self, step: int, metrics: dict[str, float]) -> None:
        allowed = self._config.max_skipped_steps
        found = f"step {step}: loss {metrics['loss']} with gradient norm {metrics['gradient_norm']}"
        if self._skipped > allowed:
            raise RunError(
                f"{found}; {self._skipped} update(s) were not finite, and train.max_skipped_steps "
                f"is {allowed}"
            )
        self._line.say(f"{found}; update skipped ({self._skipped} so far, {allowed} allowed)")

    def _write(self, kind: str, step: int, values: Mapping[str, float]) -> None:
        if self._writer:
            self._writer.write(kind, step, values)


def progress_line(
    step: int, num_steps: int, metrics: dict[str, float], seconds_per_step: float | None
) -> str:
    """step, loss, tokens/s, time left and time spent waiting for data, for people."""
    line = f"step {step:>{len(str(num_steps))}}/{num_steps}  loss {metrics['loss']:.3f}"
    if seconds_per_step is not None:
        line += f"  {metrics['tokens_per_second']:,.0f} tokens/s"
        line += f"  {duration((num_steps - step) * seconds_per_step)} left"
        line += f"  {metrics['data_wait']:.1%} waiting for data"
    return line


def utilisation_of(
    model: GLMConfig,
    sequence_length: int,
    chips: Sequence[Chip],
    logit_fraction: float,
    frozen_parameters: int = 0,
) -> Callable[[float], float | None]:
    """From tokens per second to the share of the chips' peak, None where that is not known.

    Arguments as in `model_flops_utilisation`.
    """
    return lambda speed: model_flops_utilisation(
        model, sequence_length, speed, chips, logit_fraction, frozen_parameters
    )
