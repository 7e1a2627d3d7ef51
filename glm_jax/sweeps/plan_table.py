"""The plan of a sweep as a table for people."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from glm_jax.sweeps.naming import short_names, shown_value
from glm_jax.sweeps.plan import Plan
from glm_jax.sweeps.space import Choices
from glm_jax.sweeps.trials import Trial

UNITS = ("", "K", "M", "G", "T", "P", "E", "Z")


def plan_lines(plan: Plan) -> list[str]:
    """What the sweep does, before the table of its trials."""
    sweep = plan.sweep
    seeds = f" x {len(sweep.seeds)} seeds" if sweep.seeds else ""
    excluded = f", {plan.num_excluded} combinations excluded" if plan.num_excluded else ""
    lines = [
        f"{plan.num_trials} trials of glm-jax {plan.kind.command} ({sweep.sampler}{seeds}"
        f"{excluded}), {sweep.parallel} at a time, backend {sweep.backend}",
        f"{plan.goal} the {plan.objective} {plan.metric}; pruner {sweep.pruner}; "
        f"folder {plan.folder}",
    ]
    for axis in plan.axes if sweep.sampler != "grid" else ():
        if isinstance(axis, Choices):
            shown = ", ".join(shown_value(value) for value in axis.values)
        else:
            shown = f"{axis.low:g} to {axis.high:g}{', log' if axis.log else ''}"
        lines.append(f"  {axis.name}: {shown}")
    costs = [trial.cost for trial in plan.trials if trial.cost]
    if costs:
        total = sum(cost.flops for cost in costs)
        largest = max(cost.memory_bytes for cost in costs)
        lines.append(
            f"{amount(total)}FLOP in all; at most {amount(largest)}B of parameters, gradients and "
            "optimizer state"
        )
    return lines


def plan_table(plan: Plan, trials: Sequence[Trial], seconds_per_flop: float | None) -> Table:
    """One row for each trial: what differs, and what it takes as far as that is known.

    Args:
      plan: of the sweep.
      trials: the rows.
      seconds_per_flop: of trials of this sweep that are done; None before there are any.
    """
    table = Table(box=None, pad_edge=False, header_style="bold")
    names = short_names(trials[0].differing)
    derived = list(plan.sweep.formulas)
    for name in ("trial", *names.values(), *short_names(derived).values()):
        table.add_column(name, overflow="fold")
    with_costs = any(trial.cost for trial in trials)
    for name in ("parameters", "FLOP", "memory", "time") if with_costs else ():
        table.add_column(name, justify="right")
    for number, trial in enumerate(trials):
        values = [shown_value(trial.differing[name]) for name in names]
        values += [shown_value(trial.settings[name]) for name in derived]
        if with_costs:
            values += _cost_cells(trial, seconds_per_flop)
        table.add_row(str(number), *values)
    return table


def _cost_cells(trial: Trial, seconds_per_flop: float | None) -> list[str]:
    if trial.cost is None:
        return [""] * 4
    time = "" if seconds_per_flop is None else f"{trial.cost.flops * seconds_per_flop:.0f} s"
    return [
        amount(trial.cost.num_parameters),
        amount(trial.cost.flops),
        f"{amount(trial.cost.memory_bytes)}B",
        time,
    ]


def amount(number: float) -> str:
    """A number with three digits and a unit prefix: 1.35M."""
    for unit in UNITS:
        if abs(number) < 999.5 or unit == UNITS[-1]:
            return f"{number:.3g}{unit}"
        number /= 1000
    raise AssertionError("unreachable")
