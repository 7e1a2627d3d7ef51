"""The difference of two networks along their layers, as a small plot."""

from __future__ import annotations

import io

import numpy as np
from matplotlib.figure import Figure

from glm_jax.parity.report import ParityReport

# Okabe and Ito's colours, which colour-blind readers can distinguish.
_WITHIN, _BEYOND = "#0072B2", "#D55E00"
_LOWEST_SHARE = 1e-2  # of the tolerance, so that exact agreement is visible


def draw_differences(report: ParityReport) -> bytes:
    """A PNG of the largest difference at every station, on a logarithmic axis.

    Differences of 0 are drawn at the lower edge, those that are not finite at the upper one.
    """
    stations = [each.station for each in report.differences]
    values = np.array([each.max_absolute for each in report.differences])
    shown = values[(values > 0) & np.isfinite(values)]
    low = min([*shown, _LOWEST_SHARE * report.tolerance]) / 3
    high = max([*shown, report.tolerance]) * 10
    within = values <= report.tolerance
    heights = np.clip(values, low, high)

    figure = Figure(figsize=(max(4.0, 0.22 * len(stations) + 1.5), 3), layout="constrained")
    axes = figure.subplots()
    positions = np.arange(len(stations))
    for chosen, colour in ((within, _WITHIN), (~within, _BEYOND)):
        axes.vlines(positions[chosen], low, heights[chosen], color=colour, lw=1)
        axes.plot(positions[chosen], heights[chosen], "o", color=colour, ms=4, clip_on=False)
    axes.axhline(report.tolerance, color="0.4", ls=":", lw=1)
    axes.annotate(
        f"tolerance {report.tolerance:g}",
        (1, report.tolerance),
        xycoords=("axes fraction", "data"),
        ha="right",
        va="bottom",
        fontsize=7,
        color="0.4",
    )
    axes.set_yscale("log")
    axes.set_ylim(low, high)
    axes.set_xticks(positions, [_label(station, len(stations)) for station in stations], fontsize=7)
    axes.tick_params(axis="x", rotation=90)
    axes.tick_params(axis="y", labelsize=7)
    axes.set_ylabel("largest |A - B|", fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    content = io.BytesIO()
    figure.savefig(content, dpi=120, format="png")
    return content.getvalue()


def _label(station: str, count: int) -> str:
    """The station's name; of many layers only every fourth."""
    number = station.removeprefix("layer ")
    return "" if count > 30 and number.isdecimal() and int(number) % 4 else station
