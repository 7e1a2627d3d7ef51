"""Metrics of a run: the files on disk, the loss plot, and the progress line on a terminal."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from io import BytesIO
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.text import Text

from glm_jax.errors import RunError
from glm_jax.io.append import AppendedFile
from glm_jax.io.files import write_file
from glm_jax.io.paths import resolve_path
from glm_jax.train.events import EventsFile


class MetricsWriter:
    """Appends to a run's `metrics.jsonl` and its TensorBoard events.

    Every line is one JSON object with the step, the kind ("train" or "validation") and the values.
    """

    def __init__(self, run_folder: str | os.PathLike[str], first_step: int):
        """Opens both for a run that resumes at `first_step`, dropping records of later steps."""
        folder = resolve_path(run_folder, "train.run_folder")
        self._log = MetricsLog(folder / "metrics.jsonl", first_step)
        self._events = EventsFile(folder / "tensorboard", first_step + 1)

    def write(self, kind: str, step: int, values: Mapping[str, float]) -> None:
        """Appends one record; values that are not finite are written as null."""
        finite = {name: value if math.isfinite(value) else None for name, value in values.items()}
        self._log.append({"step": step, "kind": kind, **finite})
        for name, value in values.items():
            self._events.add_scalar(f"{kind}/{name}", value, step)

    def close(self) -> None:
        """Closes both."""
        try:
            self._log.close()
        finally:
            self._events.close()


class MetricsLog:
    """A metrics file that records are appended to, without those of steps after `last_step`.

    A run that was killed may have logged steps that its newest checkpoint does not hold yet; it
    will log them again.
    """

    def __init__(self, path: str | os.PathLike[str], last_step: int):
        """Rewrites the file without later steps and incomplete lines, and opens it."""
        kept = [record for record in read_metrics(path) if record["step"] <= last_step]
        text = "".join(json.dumps(record) + "\n" for record in kept)
        self._file = AppendedFile(path, text.encode())

    def append(self, record: Mapping[str, Any]) -> None:
        """Adds one record: at a local path, it is in the file when this returns."""
        self._file.append((json.dumps(record) + "\n").encode())

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


def read_metrics(path: str | os.PathLike[str]) -> Iterator[dict[str, Any]]:
    """The records of a metrics file in order; an unfinished last line is left out."""
    file = resolve_path(path)
    if not file.is_file():
        return
    for line in file.read_bytes().split(b"\n"):
        try:
            yield json.loads(line)
        except ValueError:
            return


def draw_loss(metrics_file: str | os.PathLike[str], picture: str | os.PathLike[str]) -> None:
    """Draws training and validation loss over the steps, from the metrics file alone.

    Raises:
      RunError: the file holds no training step.
    """
    from matplotlib.figure import Figure  # only at the end of a run: it takes long to import

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
    image = BytesIO()
    figure.savefig(image, dpi=120, format="png")
    write_file(picture, image.getvalue())


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
