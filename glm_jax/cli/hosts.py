"""Show the progress of every process of a run, and which of them is silent or behind.

    glm-jax hosts runs/glm_10b

Each process rewrites a small file in the run folder every few seconds; this command reads them.
The exit code is 1 if a process is silent or behind.
"""

from __future__ import annotations

import argparse

HELP = "show the progress of every process of a run"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's flags."""
    parser.add_argument("run_folder", metavar="RUN_FOLDER", help="the run to look at")


def run(arguments: argparse.Namespace) -> int:
    """Prints a line for each process."""
    import time

    from glm_jax.cluster.heartbeat import lagging, read_heartbeats

    statuses = read_heartbeats(arguments.run_folder)
    now = time.time()
    notes = lagging(statuses, now)
    for status in statuses:
        note = notes.get(status.process)
        print(status.describe(now) + (f"  {note}" if note else ""))
    return 1 if notes else 0
