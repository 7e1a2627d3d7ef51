"""Run many configurations of one run, and compare them.

    glm-jax sweep FILE                  show the plan: trials, differences, costs
    glm-jax sweep run FILE              run the trials, or continue; several may run at once
    glm-jax sweep run FILE --dry_run    show the commands that would run
    glm-jax sweep report FOLDER         compare the trials, also while they run

FILE is a gin file that includes a run's file and sets values of the section `sweep`; see
docs/sweeps.md. --gin.SECTION.NAME=VALUE wins over it, such as --gin.sweep.parallel=2.
"""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING

from glm_jax.errors import UsageError

if TYPE_CHECKING:
    from rich.console import Console

    from glm_jax.sweeps.plan import Plan

HELP = "run many configurations of one run and compare them"
TAKES_GIN = True
ACTIONS = ("plan", "run", "report")
WIDTH = 200  # of tables in files and pipes
FLAGS = {"retry_failed": ("run",), "watch": ("report",), "dry_run": ("plan", "run")}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's flags."""
    parser.add_argument(
        "words", nargs="+", metavar="[run|report] FILE", help="what to do, and with which sweep"
    )
    parser.add_argument("--dry_run", action="store_true", help="only show what would be done")
    parser.add_argument("--retry_failed", action="store_true", help="run failed trials again (run)")
    parser.add_argument("--watch", action="store_true", help="repeat until all is done (report)")


def run(arguments: argparse.Namespace) -> int:
    """Shows the plan, runs the sweep, or reports on it."""
    words = list(arguments.words)
    action = words.pop(0) if words[0] in ACTIONS and len(words) > 1 else "plan"
    if len(words) != 1:
        raise UsageError(
            f"glm-jax sweep takes one of {', '.join(ACTIONS)} and one file or folder, not "
            f"{' '.join(arguments.words)}"
        )
    for flag, actions in FLAGS.items():
        if getattr(arguments, flag) and action not in actions:
            raise UsageError(f"--{flag} goes with glm-jax sweep {actions[-1]}")
    from rich.console import Console

    console = Console(highlight=False, markup=False, soft_wrap=True)
    if not console.is_terminal:
        console = Console(highlight=False, markup=False, soft_wrap=True, width=WIDTH)
    if action == "report":
        return _report(words[0], arguments, console)
    # Before JAX is imported: the devices belong to the trials.
    environment = dict(os.environ)
    os.environ["JAX_PLATFORMS"] = "cpu"
    plan = _plan(words[0], arguments.bindings, environment)
    if action == "plan" or arguments.dry_run:
        _show(plan, console)
        if action == "run":
            _show_commands(plan, environment, console)
        return 0
    from glm_jax.sweeps.backends import make_backend
    from glm_jax.sweeps.run import run_sweep

    def say(line: str) -> None:
        console.print(line)

    backend = make_backend(plan, environment)
    run_sweep(plan, backend, say, retry_failed=arguments.retry_failed)
    say(f"glm-jax sweep report {plan.folder}")
    return 0


def _plan(file: str, bindings: list[str], environment: dict[str, str]) -> Plan:
    """The validated plan of a sweep's file."""
    from glm_jax.configure import read_sweep
    from glm_jax.sweeps.backends import devices_per_trial
    from glm_jax.sweeps.plan import Plan

    sweep, bound = read_sweep([file], bindings)
    return Plan(sweep, bound, file, devices_per_trial(sweep, environment))


def _show(plan: Plan, console: Console) -> None:
    """Prints the plan."""
    from glm_jax.sweeps.plan import missing_inputs
    from glm_jax.sweeps.plan_table import plan_lines, plan_table

    for line in plan_lines(plan):
        console.print(line)
    if plan.trials:
        console.print(plan_table(plan, plan.trials, _measured_speed(plan)))
    for problem in missing_inputs(plan.trials):
        console.print(f"note: {problem}")


def _measured_speed(plan: Plan) -> float | None:
    """Seconds for each operation, from trials of this sweep that are done; None without any."""
    from glm_jax.io.paths import resolve_path
    from glm_jax.sweeps.report.results import read_results, seconds_per_flop
    from glm_jax.sweeps.run import SWEEP_FILE

    if not (resolve_path(plan.folder) / SWEEP_FILE).is_file():
        return None
    return seconds_per_flop(read_results(plan.folder))


def _show_commands(plan: Plan, environment: dict[str, str], console: Console) -> None:
    """Prints what would run for each known trial."""
    from glm_jax.sweeps.backends import make_backend

    backend = make_backend(plan, environment, start=False)
    for number, trial in enumerate(plan.trials):
        console.print(backend.commands(trial, number % backend.num_slots))


def _report(folder: str, arguments: argparse.Namespace, console: Console) -> int:
    """Prints and writes the report, once or until the sweep is done."""
    from glm_jax.sweeps.report.report import show_report, watch_report

    if arguments.bindings:
        raise UsageError(f"glm-jax sweep report takes no --gin.{arguments.bindings[0]}")
    if arguments.watch:
        watch_report(folder, console)
    else:
        show_report(folder, console)
    return 0
