"""Pictures of a sweep as SVG, for light and dark pages."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from io import BytesIO
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from glm_jax.sweeps.naming import short_names, shown_value
from glm_jax.sweeps.report.analysis import (
    MAX_LIST,
    best_by_size,
    done_trials,
    fit_power_law,
    hashable,
    importances,
    varied_axes,
)
from glm_jax.sweeps.report.curves import read_curves
from glm_jax.sweeps.report.results import Results
from glm_jax.sweeps.report.statistics import Group, groups_of

INK = ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color")
MAX_LABELS = 8  # configurations with a name in the legend
MAX_ROWS = 40  # configurations in one picture
SIZES = {"num_parameters": "parameters", "flops": "training FLOP"}


@dataclasses.dataclass(frozen=True)
class Theme:
    """Colours of a picture.

    Attributes:
      name: "light" or "dark".
      ink: of text and axes.
      paper: of the page.
      colours: of curves and cells, a colour map of Matplotlib.
      span: the part of it that contrasts with the page, for curves.
    """

    name: str
    ink: str
    paper: str
    colours: str
    span: tuple[float, float]


THEMES = (
    Theme("light", ink="#222222", paper="#ffffff", colours="viridis", span=(0.0, 0.85)),
    Theme("dark", ink="#dddddd", paper="#16181c", colours="plasma", span=(0.98, 0.35)),
)


def draw_pictures(results: Results, theme: Theme) -> Iterator[tuple[str, str, bytes]]:
    """Every picture that the results have something for: its name, its title, its SVG."""
    drawings = (
        ("configurations", "Configurations", _configurations),
        ("curves", "Course of the trials", _curves),
        ("heat_map", "Two settings", _heat_map),
        ("importance", "Importance of the settings", _importance),
        ("scaling", "Scaling", _scaling),
    )
    settings: dict[Any, Any] = {
        **dict.fromkeys(INK, theme.ink),
        "axes.facecolor": "none",
        "svg.fonttype": "none",
        "svg.hashsalt": results.name,
    }
    for name, title, draw in drawings:
        with matplotlib.rc_context(settings):
            figure = draw(results, theme)
            if figure is None:
                continue
            image = BytesIO()
            metadata = {"Date": None, "Creator": None}
            figure.savefig(image, format="svg", transparent=True, metadata=metadata)
        yield name, title, image.getvalue()


def _configurations(results: Results, theme: Theme) -> Figure | None:
    """The result of each configuration: its trials, their mean and its confidence interval."""
    groups = [group for group in groups_of(results) if group.mean is not None][:MAX_ROWS]
    if len(groups) < 2:
        return None
    figure = Figure(figsize=(6.5, 1.2 + 0.4 * len(groups)), layout="constrained")
    axes = figure.subplots()
    colour = matplotlib.colormaps[theme.colours](0.55)
    for row, group in enumerate(groups):
        values = np.array([trial.value for trial in group.trials if trial.status == "done"], float)
        axes.plot(values, np.full(len(values), row), "o", ms=4, color=colour, alpha=0.7)
        mean, width = float(values.mean()), group.interval or 0.0
        axes.errorbar(mean, row, xerr=width, fmt="|", ms=12, capsize=4, color=theme.ink)
    axes.set_yticks(range(len(groups)), [configuration_name(group) for group in groups])
    axes.invert_yaxis()
    axes.set(xlabel=f"{results.metric}: trials, mean, 95% interval")
    _plain(axes)
    return figure


def configuration_name(group: Group) -> str:
    """What a configuration differs from others in, in short."""
    names = short_names(group.point)
    return ",".join(f"{names[name]}={shown_value(value)}" for name, value in group.point.items())


def _curves(results: Results, theme: Theme) -> Figure | None:
    """Losses by step, by FLOP and by time; configurations have colours, the best ones names."""
    metric, curves = read_curves(results)
    if not any(len(curve.steps) > 1 for curve in curves):
        return None
    panels: dict[str, list[Sequence[float]]] = {"step": [curve.steps for curve in curves]}
    if all(curve.flops is not None for curve in curves):
        panels["training FLOP"] = [curve.flops or [] for curve in curves]
    if any(max(curve.seconds) > 0 for curve in curves):
        panels["seconds of training"] = [curve.seconds for curve in curves]
    figure = Figure(figsize=(4.4 * len(panels), 4.6), layout="constrained")
    groups = groups_of(results)
    spread = np.linspace(*theme.span, len(groups))
    colours = dict(enumerate(matplotlib.colormaps[theme.colours](spread)))
    group_of = {trial.name: i for i, group in enumerate(groups) for trial in group.trials}
    for axes, (label, positions) in zip(
        figure.subplots(1, len(panels), squeeze=False, sharey=True)[0],
        panels.items(),
        strict=True,
    ):
        for curve, where in zip(curves, positions, strict=True):
            number = group_of[curve.trial.name]
            name = configuration_name(groups[number]) or curve.trial.name
            axes.plot(where, curve.values, color=colours[number], lw=1.4, label=name)
        axes.set(xlabel=label)
        _plain(axes)
    figure.axes[0].set(ylabel=metric)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    named = list(dict(zip(labels, handles, strict=True)).items())[:MAX_LABELS]
    labels, handles = zip(*named, strict=True)
    figure.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False)
    return figure


def _heat_map(results: Results, theme: Theme) -> Figure | None:
    """The mean result at each pair of values of the two axes with the most influence."""
    trials = done_trials(results)
    ranked = [name for name in importances(results) if name in varied_axes(trials)]
    axes_names = [
        name for name in ranked if len({hashable(t.point.get(name)) for t in trials}) <= MAX_LIST
    ][:2]
    if len(axes_names) < 2:
        return None
    rows, columns = (
        sorted({hashable(t.point.get(n)) for t in trials}, key=lambda v: (str(type(v)), v))
        for n in axes_names
    )
    values = np.full((len(rows), len(columns), len(trials)), np.nan)
    for number, trial in enumerate(trials):
        row, column = (hashable(trial.point.get(name)) for name in axes_names)
        values[rows.index(row), columns.index(column), number] = trial.value
    counts = (~np.isnan(values)).sum(axis=2)
    means = np.where(counts > 0, np.nansum(values, axis=2) / np.maximum(counts, 1), np.nan)
    size = (2.5 + 1.2 * len(columns), 1.8 + 0.7 * len(rows))
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(means, cmap=theme.colours, aspect="auto")
    for (row, column), mean in np.ndenumerate(means):
        if not np.isnan(mean):
            bright = sum(image.cmap(image.norm(mean))[:3]) > 1.5
            colour = "black" if bright else "white"
            axes.text(column, row, f"{mean:.4g}", ha="center", va="center", color=colour)
    names = short_names(axes_names)
    axes.set_yticks(range(len(rows)), [shown_value(value) for value in rows])
    axes.set_xticks(range(len(columns)), [shown_value(value) for value in columns])
    axes.set(ylabel=names[axes_names[0]], xlabel=names[axes_names[1]])
    figure.colorbar(image, label=results.metric)
    return figure


def _importance(results: Results, theme: Theme) -> Figure | None:
    """How much of the variance of the results each setting explains by itself."""
    shares = importances(results)
    if not shares:
        return None
    names = short_names(shares)
    figure = Figure(figsize=(6.5, 1.2 + 0.4 * len(shares)), layout="constrained")
    axes = figure.subplots()
    colour = matplotlib.colormaps[theme.colours](0.55)
    labels = [names[name] for name in shares]
    bars = axes.barh(labels, [100 * share for share in shares.values()], color=colour)
    axes.bar_label(bars, fmt="%.0f%%", padding=3, color=theme.ink)
    axes.invert_yaxis()
    axes.set(xlabel=f"variance of {results.metric} that it explains alone", xlim=(0, 112))
    axes.xaxis.set_major_formatter("{x:.0f}%")
    _plain(axes)
    return figure


def _scaling(results: Results, theme: Theme) -> Figure | None:
    """The best result of each size, and the power law through them, where sizes vary."""
    found = {size: best_by_size(results, size) for size in SIZES}
    found = {size: points for size, points in found.items() if len(points[0]) > 1}
    if not found or results.goal != "minimize":
        return None
    figure = Figure(figsize=(5 * len(found), 4), layout="constrained")
    colour = matplotlib.colormaps[theme.colours](0.55)
    panels = figure.subplots(1, len(found), squeeze=False)[0]
    for axes, (size, (sizes, values)) in zip(panels, found.items(), strict=True):
        axes.plot(sizes, values, "o", color=colour)
        law = fit_power_law(sizes, values)
        if law is not None:
            line = np.geomspace(sizes[0], sizes[-1])
            label = f"{law.factor:.3g} x^{law.exponent:.3g}"
            axes.plot(line, law(line), "--", color=theme.ink, lw=1, label=label)
            axes.legend(frameon=False)
        axes.set(xscale="log", yscale="log", xlabel=SIZES[size], ylabel=results.metric)
        for formatter in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
            formatter("{x:.3g}")
        _plain(axes)
    return figure


def _plain(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
