"""A report on a sweep: printed, and written into its folder."""

from __future__ import annotations

import time
from pathlib import Path

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from glm_jax.io.files import make_folder, write_file
from glm_jax.io.paths import is_url
from glm_jax.sweeps.report.best import best_gin
from glm_jax.sweeps.report.hparams import write_hparams
from glm_jax.sweeps.report.page import report_page
from glm_jax.sweeps.report.pictures import THEMES, draw_pictures
from glm_jax.sweeps.report.results import Results, read_results
from glm_jax.sweeps.report.tables import (
    as_markdown,
    as_table,
    group_rows,
    summary_line,
    trial_rows,
    trials_csv,
)

REPORT = "report"
WATCH_SECONDS = 5.0


def show_report(folder: str, console: Console) -> None:
    """Prints what a sweep has found so far, and writes it into its folder.

    Raises:
      UsageError: it is not the folder of a sweep.
    """
    results = read_results(folder)
    console.print(tables(results))
    for path in write_report(results):
        console.print(f"wrote {path}")


def watch_report(folder: str, console: Console) -> None:
    """Prints what a sweep has found whenever that changes, until all trials have ended."""
    with Live(console=console, auto_refresh=False) as live:
        while True:
            results = read_results(folder)
            live.update(tables(results), refresh=True)
            if results.num_ended >= results.num_trials:
                break
            time.sleep(WATCH_SECONDS)
    write_report(results)


def tables(results: Results) -> Group:
    """The results for a terminal."""
    return Group(
        Text(summary_line(results)),
        Text(""),
        as_table(group_rows(results), "configurations"),
        Text(""),
        as_table(trial_rows(results), "trials"),
    )


def write_report(results: Results) -> list[str]:
    """Writes the report into the folder of the sweep; returns its files."""
    folder = f"{results.folder}/{REPORT}"
    make_folder(folder)
    markdown = (
        f"# Sweep {results.name}\n\n{summary_line(results)}.\n\n## Configurations\n\n"
        f"{as_markdown(group_rows(results))}\n## Trials\n\n{as_markdown(trial_rows(results))}"
    )
    files = {"report.md": markdown, "trials.csv": trials_csv(results)}
    best = best_gin(results)
    if best is not None:
        files["best.gin"] = best
    for name, _, image in draw_pictures(results, THEMES[0]):
        files[f"{name}.svg"] = image.decode()
    files["index.html"] = report_page(results, best)
    for name, text in files.items():
        write_file(f"{folder}/{name}", text.encode())
    names = list(files)
    if not is_url(folder):
        write_hparams(results, Path(folder) / "tensorboard")
        names.append("tensorboard")
    return [f"{folder}/{name}" for name in names]
