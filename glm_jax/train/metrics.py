"""Metrics of a run: the files on disk, the loss plot, and the progress line on a terminal."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from rich.console import Console
from rich.live import Live
from rich.text import Text
from tensorboardX import SummaryWriter

from glm_jax.errors import RunError


class MetricsWriter:
    """Appends to a run's `metrics.jsonl` and its TensorBoard events.

    Every line is one JSON object with the step, the kind ("train" or "validation") and the values.
    """

    def __init__(self, run_folder: Path, first_step: int):
        """Opens both for a run that starts after `first_step`, dropping records of later steps."""
        self._file = open_truncated(run_folder / "metrics.jsonl", first_step)
        self._events = SummaryWriter(str(run_folder / "tensorboard"), purge_step=first_step + 1)

    def write(self, kind: str, step: int, values: Mapping[str, float]) -> None:
        """Appends one record; values that are not finite are written as null."""
        finite = {name: value if math.isfinite(value) else None for name, value in values.items()}
        self._file.write(json.dumps({"step": step, "kind": kind, **finite}) + "\n")
        self._file.flush()
        for name, value in values.items():
            self._events.add_scalar(f"{kind}/{name}", value, step)

    def close(self) -> None:
        """Flushes and closes both."""
        self._file.close()
        self._events.close()


def open_truncated(path: Path, last_step: int):
    """Opens a metrics file for appending, without the lines of later steps or half-written ones.

    A run that was killed may have logged steps after its newest checkpoint; it will log them again.
    """
    kept = [record for record in read_metrics(path) if record["step"] <= last_step]
    partial = path.with_suffix(".jsonl.partial")
    partial.write_text("".join(json.dumps(record) + "\n" for record in kept))
    os.replace(partial, path)
    return path.open("a")


def read_metrics(path: Path) -> Iterator[dict[str, Any]]:
    """The records of a metrics file in order; an unfinished last line is ignored."""
    if not path.is_file():
        return
    for line in path.read_text().splitlines():
        try:
            yield json.loads(line)
        except json.JSONDecodeError:
            return


def draw_loss(metrics_file: Path, picture: Path) -> None:
    """Draws training and validation loss over the steps, from the metrics file alone.

    Raises:
      RunError: the file holds no training step.
    """
    records = list(read_metrics(metrics_file))
    train = [r for r in records if r["kind"] == "train" and r["loss"] is not None]
    validation = [r for r in records if r["kind"] == "validation"]
    if not train:
        raise RunError(f"{metrics_file} holds no training step to draw")

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    axes.plot(
        [r["step"] for r in train], [r["loss"] for r in train], color="0.75", lw=1, label="training"
    )
    smooth = _running_mean([r["loss"] for r in train])
    axes.plot([r["step"] for r in train], smooth, color="tab:blue", label="training, smoothed")
    if validation:
        steps = [r["step"] for r in validation]
        axes.plot(
            steps, [r["loss"] for r in validation], "o-", color="tab:orange", label="validation"
        )
        entropy = validation[-1]["unigram_entropy"]
        axes.axhline(entropy, color="0.4", ls=":", label="unigram entropy of the targets")
    axes.set(xlabel="step", ylabel="loss (nats per target token)")
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    partial = picture.with_suffix(".partial.png")
    figure.savefig(partial, dpi=120)
    os.replace(partial, picture)


def _running_mean(values: list[float], weight: float = 0.9) -> list[float]:
    """Exponential running mean, corrected for its start."""
    means, total, mass = [], 0.0, 0.0
    for value in values:
        total = weight * total + (1 - weight) * value
        mass = weight * mass + (1 - weight)
        means.append(total / mass)
    return means


class ProgressLine:
    """One line that changes in place on a terminal; a plain line per log elsewhere."""

    def __init__(self, console: Console):
        self._console = console
        self._live = Live(console=console, refresh_per_second=8, transient=False)

    def __enter__(self) -> ProgressLine:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_error) -> None:
        if self._console.is_terminal:
            self._live.stop()

    def show(self, line: str, *, logged: bool) -> None:
        """Shows the state of the run; off a terminal only where it is `logged`."""
        if self._console.is_terminal:
            self._live.update(Text(line, no_wrap=True, overflow="ellipsis"))
        elif logged:
            self.say(line)

    def say(self, line: str) -> None:
        """A line that stays."""
        self._console.print(line, highlight=False, markup=False, soft_wrap=True)


def duration(seconds: float) -> str:
    """Seconds as a short text: 42s, 3m05s, 2h07m."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds}s"
    if seconds < 3600:
        return f"{seconds // 60}m{seconds % 60:02d}s"
    return f"{seconds // 3600}h{seconds % 3600 // 60:02d}m"
