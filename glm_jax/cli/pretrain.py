"""Pretrain a GLM, or resume a run that was stopped.

    glm-jax pretrain --gin_file=configs/runs/demo.gin --gin.optimizer.learning_rate=3e-4

Several --gin_file may be given; later ones win, and --gin.SECTION.NAME=VALUE wins over all files.
Several processes, each with its own devices, form one run when each is started with --coordinator,
--num_processes and --process_id, or, on a cluster from which JAX detects these (Slurm, Cloud TPU,
GKE), with --distributed.
"""

from __future__ import annotations

import argparse
from contextlib import nullcontext

from glm_jax import environment
from glm_jax.errors import UsageError

HELP = "pretrain a GLM from a token store, or resume a run"
TAKES_GIN = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's flags."""
    parser.add_argument(
        "--gin_file", action="append", required=True, metavar="FILE", help="configuration to read"
    )
    parser.add_argument(
        "--profile_steps", metavar="FIRST:LAST", help="steps to trace for the profiler"
    )
    add_process_arguments(parser)


def add_process_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of `join`."""
    parser.add_argument("--coordinator", metavar="HOST:PORT", help="address of process 0")
    parser.add_argument("--num_processes", type=int, metavar="N", help="processes in the run")
    parser.add_argument("--process_id", type=int, metavar="I", help="this one's number, from 0")
    parser.add_argument(
        "--distributed", action="store_true", help="detect these three from the cluster"
    )
    parser.add_argument(
        "--join_timeout",
        type=float,
        default=300,
        metavar="SECONDS",
        help="how long to wait for the other processes (default: 300)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Reads the configuration, trains, and prints examples."""
    with environment.without_garbage_collection():
        return _run(arguments)


def _run(arguments: argparse.Namespace) -> int:
    from rich.console import Console

    from glm_jax.configure import read_configuration
    from glm_jax.train.profile import parse_profile_steps

    config = read_configuration(arguments.gin_file, arguments.bindings)
    window = arguments.profile_steps and parse_profile_steps(arguments.profile_steps)
    with join(arguments):
        import jax

        from glm_jax.train.pretrain import pretrain

        environment.keep_memory_between_steps()
        environment.keep_compiled_programs()
        first = jax.process_index() == 0
        console = Console(quiet=not first)
        outcome = pretrain(config, console, window or None)
        if first:
            from glm_jax.cli.pretrain_summary import show_ending

            show_ending(config, outcome, console, examples=jax.process_count() == 1)
    return 0


def join(arguments: argparse.Namespace):
    """Connects the processes of a run; a context manager that watches them.

    Raises:
      UsageError: only some of the three flags are given, or they and --distributed.
      RunError: some processes did not join.
    """
    given = [arguments.coordinator, arguments.num_processes, arguments.process_id]
    if all(value is None for value in given) and not arguments.distributed:
        return nullcontext()
    if arguments.distributed and any(value is not None for value in given):
        raise UsageError(
            "--distributed asks the cluster for --coordinator, --num_processes and --process_id; "
            "give either it or them"
        )
    if any(value is None for value in given) and not arguments.distributed:
        raise UsageError("--coordinator, --num_processes and --process_id go together")
    from glm_jax.cluster.join import join_processes

    return join_processes(*given, timeout=arguments.join_timeout)
