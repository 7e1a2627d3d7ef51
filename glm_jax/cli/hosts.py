"""Show how far every process of a run has come, and which of them hangs or lags.

    glm-jax hosts runs/glm_10b

Each process rewrites a small file in the run folder every few seconds; this reads them all. It
exits with 1 where a process is silent or behind.
"""

from __future__ import annotations

import argparse

HELP = "show how far every process of a run has come"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's flags."""
    parser.add_argument("run_folder", metavar="RUN_FOLDER", help="the run to look at")


def run(arguments: argparse.Namespace) -> int:
    """Prints a line for each process."""
    import time

    from glm_jax.cluster.heartbeat import lags, read_heartbeats

    beats = read_heartbeats(arguments.run_folder)
    now = time.time()
    notes = lags(beats, now)
    for beat in beats:
        print(beat.describe(now) + (f"  {notes[beat.process]}" if beat.process in notes else ""))
    return 1 if notes else 0
