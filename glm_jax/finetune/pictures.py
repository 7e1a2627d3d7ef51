"""Pictures of a finetuning run: learning curves, and which labels are taken for which others."""

from __future__ import annotations

import os
from collections.abc import Sequence
from io import BytesIO

import numpy as np
from matplotlib.figure import Figure

from glm_jax.io.files import write_file
from glm_jax.train.metrics import read_metrics

# Labels beyond these make the picture unreadable.
MAX_LABELS = 30
_NOT_METRICS = ("step", "kind", "seconds")


def draw_curves(
    metrics_files: Sequence[str | os.PathLike[str]], picture: str | os.PathLike[str]
) -> None:
    """Training loss and metrics on the dev split over the steps, from the metrics files alone.

    Args:
      metrics_files: of one run, or of runs of several seeds.
      picture: the file to write.
    """
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    loss_axes = figure.subplots()
    axes = loss_axes.twinx()
    loss_axes.set(xlabel="step", ylabel="loss (nats per example)")
    axes.set(ylabel="percent", ylim=(0, 102))
    labelled: list[str] = []
    for file in metrics_files:
        records = list(read_metrics(file))
        train = [record for record in records if record["kind"] == "train"]
        dev = [record for record in records if record["kind"] == "validation"]
        label = None if labelled else "training loss"
        losses = [_number(record["loss"]) for record in train]
        loss_axes.plot([r["step"] for r in train], losses, color="0.7", label=label)
        names = [name for name in (dev[0] if dev else {}) if name not in _NOT_METRICS]
        for number, name in enumerate(names):
            # One axis for percentages and fractions alike.
            values = np.asarray([_number(record[name]) for record in dev])
            values = values if np.any(values > 1) else 100 * values
            label = None if name in labelled else f"{name} on dev"
            steps = [record["step"] for record in dev]
            axes.plot(steps, values, "o-", color=f"C{number}", label=label)
        labelled += ["training loss", *names]
    figure.legend(loc="outside upper center", ncols=4, frameon=False)
    _save(figure, picture)


def _number(value: float | None) -> float:
    """A value of a metrics file, where one that is not finite is null."""
    return np.nan if value is None else value


def draw_confusion(
    names: Sequence[str], counts: Sequence[Sequence[int]], picture: str | os.PathLike[str]
) -> None:
    """How many examples of each label (rows) got each prediction (columns)."""
    size = len(names)
    table = np.asarray(counts)
    shares = table / np.maximum(table.sum(axis=1, keepdims=True), 1)
    side = min(3 + 0.6 * size, 14)
    figure = Figure(figsize=(side + 1, side), layout="constrained")
    axes = figure.subplots()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    ticks = range(size)
    axes.set_xticks(ticks, names, rotation=45, ha="right")
    axes.set_yticks(ticks, names)
    axes.set(xlabel="predicted", ylabel="label")
    if size <= MAX_LABELS:
        for row in ticks:
            for column in ticks:
                color = "white" if shares[row, column] > 0.5 else "black"
                text = str(table[row, column])
                axes.text(column, row, text, ha="center", va="center", color=color)
    _save(figure, picture)


def _save(figure: Figure, picture: str | os.PathLike[str]) -> None:
    image = BytesIO()
    figure.savefig(image, dpi=120, format="png")
    write_file(picture, image.getvalue())
