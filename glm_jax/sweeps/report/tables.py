"""The results of a sweep as tables: for a terminal, as CSV, as Markdown."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from rich.table import Table

from glm_jax.sweeps.naming import short_names, shown_value
from glm_jax.sweeps.plan_table import amount
from glm_jax.sweeps.report.results import Result, Results
from glm_jax.sweeps.report.statistics import Group, groups_of
from glm_jax.train.metrics import duration

Rows = list[list[str]]


def summary_line(results: Results) -> str:
    """What the sweep is, and how far."""
    counts = {}
    for trial in results.trials:
        counts[trial.status] = counts.get(trial.status, 0) + 1
    shown = ", ".join(f"{number} {status}" for status, number in counts.items())
    return (
        f"{results.name}: {len(results.trials)} of {results.num_trials} trials started ({shown}); "
        f"{results.goal} the {results.objective} {results.metric}"
    )


def group_rows(results: Results) -> Rows:
    """A row for each configuration, the better first, under a row of headings."""
    groups = groups_of(results)
    names = short_names(_axes(results))
    rows = [[*names.values(), results.metric, "95% interval", "seeds done"]]
    for group in groups:
        values = [shown_value(group.point.get(name, "")) for name in names]
        rows.append([*values, _number(group.mean), _interval(group), _seeds(group)])
    return rows


def trial_rows(results: Results) -> Rows:
    """A row for each trial, the better first, under a row of headings."""
    names = short_names([*_axes(results), "seed"] if _has_seeds(results) else _axes(results))
    with_costs = any(trial.flops is not None for trial in results.trials)
    costs = ["parameters", "FLOP"] if with_costs else []
    rows = [
        [*names.values(), "status", "final", "best", "at step", "steps", *costs, "time", "note"]
    ]
    for trial in results.trials:
        values = [shown_value(trial.differing.get(name, "")) for name in names]
        rows.append([*values, *_trial_cells(trial, results, with_costs)])
    return rows


def as_table(rows: Rows, title: str) -> Table:
    """Rows for a terminal."""
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for heading in rows[0]:
        table.add_column(heading, overflow="fold")
    for row in rows[1:]:
        table.add_row(*row)
    return table


def as_markdown(rows: Rows) -> str:
    """Rows as a Markdown table."""
    lines = [rows[0], ["---"] * len(rows[0]), *rows[1:]]
    return "".join(f"| {' | '.join(_escaped(row))} |\n" for row in lines)


def trials_csv(results: Results) -> str:
    """Every trial with all of its settings and metrics, in full precision."""
    settings = sorted({name for trial in results.trials for name in trial.settings})
    metrics = sorted({name for trial in results.trials for name in trial.final})
    axes = _axes(results)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    own = ["trial", *axes, "seed", "status", "value", "best", "best_step", "steps"]
    costs = ["train_seconds", "num_parameters", "flops"]
    writer.writerow([*own, *costs, *settings, *metrics, "message"])
    for trial in results.trials:
        row = [trial.name, *(trial.point.get(name, "") for name in axes), trial.seed, trial.status]
        row += [trial.value, trial.best, trial.best_step, trial.steps]
        row += [trial.train_seconds, trial.num_parameters, trial.flops]
        row += [trial.settings.get(name, "") for name in settings]
        row += [trial.final.get(name, "") for name in metrics]
        writer.writerow([*row, trial.message])
    return text.getvalue()


def _axes(results: Results) -> list[str]:
    """What the trials differ in, seeds excluded, in the sweep's order."""
    return list(dict.fromkeys(name for trial in results.trials for name in trial.point))


def _has_seeds(results: Results) -> bool:
    return any(trial.seed is not None for trial in results.trials)


def _trial_cells(trial: Result, results: Results, with_costs: bool) -> list[str]:
    costs = []
    if with_costs:
        known = (trial.num_parameters, trial.flops)
        costs = ["" if number is None else amount(number) for number in known]
    return [
        trial.status,
        _number(trial.final.get(results.metric)),
        _number(trial.best),
        "" if trial.best_step is None else str(trial.best_step),
        str(trial.steps),
        *costs,
        duration(trial.train_seconds),
        trial.message if trial.status in ("failed", "pruned") else "",
    ]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.5g}"


def _interval(group: Group) -> str:
    return "" if group.interval is None else f"± {group.interval:.2g}"


def _seeds(group: Group) -> str:
    return f"{group.num_values} of {len(group.trials)}"


def _escaped(row: Sequence[str]) -> list[str]:
    return [cell.replace("|", "\\|").replace("\n", " ") for cell in row]
