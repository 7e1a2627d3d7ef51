"""Pretrain a GLM, or go on with a run that was stopped.

    glm-jax pretrain --gin_file=configs/runs/demo.gin --gin.optimizer.learning_rate=3e-4

Several --gin_file may be given; later ones win, and --gin.SECTION.NAME=VALUE wins over all files.
Several processes, each with its own devices, form one run when every one of them is started with
--coordinator, --num_processes and --process_id.
"""

from __future__ import annotations

import argparse

from glm_jax.errors import UsageError

HELP = "pretrain a GLM from a token store, or go on with a run"
TAKES_GIN = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's flags."""
    parser.add_argument(
        "--gin_file", action="append", required=True, metavar="FILE", help="configuration to read"
    )
    parser.add_argument("--coordinator", metavar="HOST:PORT", help="address of process 0")
    parser.add_argument("--num_processes", type=int, metavar="N", help="processes in the run")
    parser.add_argument("--process_id", type=int, metavar="I", help="this one's number, from 0")


def run(arguments: argparse.Namespace) -> int:
    """Reads the configuration, trains, and shows what the model has learnt."""
    from rich.console import Console

    from glm_jax.configure import read_configuration

    config = read_configuration(arguments.gin_file, arguments.bindings)
    join_processes(arguments)

    import jax

    from glm_jax.train.pretrain import pretrain

    first = jax.process_index() == 0
    console = Console(quiet=not first)
    outcome = pretrain(config, console)
    if first:
        from glm_jax.cli.ending import show_ending

        show_ending(config, outcome, console, examples=jax.process_count() == 1)
    return 0


def join_processes(arguments: argparse.Namespace) -> None:
    """Connects the processes of a run with several of them.

    Raises:
      UsageError: only some of the three flags are given.
    """
    given = [arguments.coordinator, arguments.num_processes, arguments.process_id]
    if all(value is None for value in given):
        return
    if any(value is None for value in given):
        raise UsageError("--coordinator, --num_processes and --process_id go together")
    import jax

    jax.distributed.initialize(arguments.coordinator, arguments.num_processes, arguments.process_id)
