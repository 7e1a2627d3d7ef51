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


def draw_curves(metrics_file: str | os.PathLike[str], picture: str | os.PathLike[str]) -> None:
    """Training loss and metrics on the dev split over the steps, from the metrics file alone."""
    records = list(read_metrics(metrics_file))
    train = [record for record in records if record["kind"] == "train"]
    dev = [record for record in records if record["kind"] == "validation"]
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    loss_axes = figure.subplots()
    loss_axes.plot(
        [r["step"] for r in train], [r["loss"] for r in train], color="0.7", label="training loss"
    )
    loss_axes.set(xlabel="step", ylabel="loss (nats per example)")
    axes = loss_axes.twinx()
    names = [name for name in (dev[0] if dev else {}) if name not in _NOT_METRICS]
    for name in names:
        # One axis for percentages and fractions alike.
        values = np.asarray([np.nan if r[name] is None else r[name] for r in dev])
        values = values if np.any(values > 1) else 100 * values
        axes.plot([r["step"] for r in dev], values, "o-", label=f"{name} on dev")
    axes.set(ylabel="percent", ylim=(0, 102))
    figure.legend(loc="outside upper center", ncols=1 + len(names), frameon=False)
    _save(figure, picture)


def draw_confusion(
    names: Sequence[object],
    labels: Sequence[int],
    predictions: Sequence[int],
    picture: str | os.PathLike[str],
) -> None:
    """How many examples of each label (rows) got each prediction (columns)."""
    size = len(names)
    counts = np.zeros((size, size), int)
    np.add.at(counts, (np.asarray(labels), np.asarray(predictions)), 1)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = min(3 + 0.6 * size, 14)
    figure = Figure(figsize=(side + 1, side), layout="constrained")
    axes = figure.subplots()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    ticks = range(size)
    axes.set_xticks(ticks, [str(name) for name in names], rotation=45, ha="right")
    axes.set_yticks(ticks, [str(name) for name in names])
    axes.set(xlabel="predicted", ylabel="label")
    if size <= MAX_LABELS:
        for row in ticks:
            for column in ticks:
                color = "white" if shares[row, column] > 0.5 else "black"
                text = str(counts[row, column])
                axes.text(column, row, text, ha="center", va="center", color=color)
    _save(figure, picture)


def _save(figure: Figure, picture: str | os.PathLike[str]) -> None:
    image = BytesIO()
    figure.savefig(image, dpi=120, format="png")
    write_file(picture, image.getvalue())
