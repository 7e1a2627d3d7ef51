"""Compile the train step of a run for TPUs ahead of time, without the hardware.

    glm-jax compile --gin_file=configs/runs/glm_10b.gin --topology=v5p:4x4x4
    glm-jax compile --gin_file=configs/finetune/rte_10b.gin --topology=v5e:4x4
    glm-jax compile --gin_file=F --topology=v5e:16x16 --num_slices=2 --json=step.json
    glm-jax compile --topology=v5p:4x4x4 --compare full.gin minimal.gin

Nothing runs, and neither data nor weights are needed: the real TPU compiler (`pip install libtpu`,
Linux on x86-64) compiles the same step that `glm-jax pretrain` or `glm-jax finetune` runs. Reports
the memory per chip, operations, transfers and bounds of the step time. The exit code is 1 if the
step does not fit.

A finetuning step is compiled for batches of full-length rows, and for the network of
configs/models/ that is named as the checkpoint in finetune.initial_weights, or of --model_file.

--decode compiles a step of `glm-jax fill`, `chat` and `serve` for the network of --model_file:

    glm-jax compile --decode --model_file=configs/chatglm/chatglm_6b.gin --topology=v5e:1x1
        --gin.chatglm.compute_dtype=bfloat16 --gin.chatglm.quantization=int8

Its caches are full, as at the end of a text of --cache_length positions.

--compare compares configurations, each with its ratio to the first; a .json file that --json wrote
may replace a gin file. --gin.SECTION.NAME=VALUE applies to all gin files. The
compiler's flags are those of launch/ for the generation; --compiler_option adds to them.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING

from glm_jax.errors import RunError, UsageError
from glm_jax.io.files import check_new_file, write_file
from glm_jax.io.paths import resolve_path

if TYPE_CHECKING:
    from glm_jax.compile.report import StepReport
    from glm_jax.compile.topology import Topology

# Named as the values of the section `decode`.
DECODE_FLAGS = ("batch_size", "cache_length")
HELP = "compile a run's step for any TPU slice, without one: memory, transfers, speed"
TAKES_GIN = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's flags."""
    parser.add_argument(
        "--gin_file", action="append", metavar="FILE", help="configuration to compile"
    )
    parser.add_argument(
        "--topology", required=True, metavar="T", help="slice to compile for, such as v5p:4x4x4"
    )
    parser.add_argument(
        "--model_file",
        metavar="FILE",
        help="network of a finetuning run or of --decode, as in configs/models/ and chatglm/",
    )
    parser.add_argument(
        "--decode", action="store_true", help="compile a step of decoding with --model_file"
    )
    parser.add_argument(
        "--batch_size", type=int, metavar="B", help="texts at a time, with --decode (1)"
    )
    parser.add_argument(
        "--cache_length", type=int, metavar="M", help="positions of a text, with --decode (2048)"
    )
    parser.add_argument(
        "--num_slices", type=int, default=1, metavar="N", help="slices of that shape (1)"
    )
    parser.add_argument(
        "--json",
        type=partial(resolve_path, name="--json"),
        metavar="FILE",
        help="write the report there, too",
    )
    parser.add_argument(
        "--compare", nargs="+", metavar="FILE", help="other configurations, or reports (.json)"
    )
    parser.add_argument(
        "--compiler_option",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a flag of the compiler, such as xla_enable_async_all_gather=true",
    )


def run(arguments: argparse.Namespace) -> int:
    """Compiles, prints, writes."""
    sides = _sides(arguments)
    given = dict(_option(text) for text in arguments.compiler_option)

    from rich.console import Console

    from glm_jax.compile.report import report_json
    from glm_jax.compile.table import details, heading, notes, step_table
    from glm_jax.compile.topology import open_topology
    from glm_jax.compile.tpu_flags import compiler_options

    topology = open_topology(arguments.topology, arguments.num_slices)
    options = {**compiler_options(topology.chip.name), **given}
    reports = [_report(side, arguments, topology, options) for side in sides]
    console = Console(soft_wrap=True, highlight=False, markup=False)
    for report in reports:
        console.print(heading(report))
    console.print(step_table(reports))
    if len(reports) == 1:
        for table in details(reports[0]):
            console.print()
            console.print(table)
    if arguments.json:
        write_file(arguments.json, report_json(reports[0]).encode())
        console.print(f"wrote {arguments.json}")
    for report in reports:
        for note in notes(report):
            console.print(f"{report.configuration}: {note}")
        if report.fits:
            console.print(f"{report.configuration}: {report.verdict()}")
    failed = [f"{r.configuration}: {r.verdict()}" for r in reports if not r.fits]
    if failed:
        raise RunError("; ".join(failed))
    return 0


def _sides(arguments: argparse.Namespace) -> list[list[str]]:
    """The files of every configuration to report on.

    Raises:
      UsageError: flags that are missing or don't go together.
    """
    if arguments.decode:
        if arguments.gin_file or arguments.compare or not arguments.model_file:
            raise UsageError(
                "--decode takes --model_file=FILE, and neither --gin_file nor --compare"
            )
        if arguments.json:
            check_new_file(arguments.json, "--json")
        return [[arguments.model_file]]
    for name in DECODE_FLAGS:
        if getattr(arguments, name) is not None:
            raise UsageError(f"--{name} is for --decode; a run's configuration has its own sizes")
    sides = [arguments.gin_file] if arguments.gin_file else []
    sides += [[path] for path in arguments.compare or ()]
    if not sides:
        raise UsageError("nothing to compile; expected --gin_file=FILE or --compare FILE FILE")
    if arguments.compare and len(sides) < 2:
        raise UsageError("--compare has one configuration; expected another, or --gin_file=FILE")
    if arguments.json and len(sides) > 1:
        raise UsageError("--json writes one report; it can't go with --compare")
    if arguments.json:
        check_new_file(arguments.json, "--json")
    return sides


def _report(
    files: list[str],
    arguments: argparse.Namespace,
    topology: Topology,
    options: Mapping[str, str | bool | int],
) -> StepReport:
    """The report of one side: read, where it is one already, or compiled now."""
    from glm_jax.compile.any_step import compile_any_step
    from glm_jax.compile.decode_step import compile_decode_step
    from glm_jax.compile.report import read_report
    from glm_jax.configure import read_any_configuration, read_decoding

    if arguments.decode:
        decoding = read_decoding(files[0], arguments.bindings)
        given = {name: getattr(arguments, name) for name in DECODE_FLAGS}
        given = {name: value for name, value in given.items() if value is not None}
        size = dataclasses.replace(decoding.decode, **given)
        return compile_decode_step(decoding.network, size, topology, files[0], options)
    if files[0].rstrip("/").endswith(".json"):
        return read_report(files[0])
    config = read_any_configuration(files, arguments.bindings)
    return compile_any_step(config, topology, files[-1], options, arguments.model_file)


def _option(text: str) -> tuple[str, str | bool | int]:
    """Name and value of a compiler's flag.

    Raises:
      UsageError: it has no value.
    """
    name, separator, value = text.partition("=")
    if not (name and separator and value):
        raise UsageError(f"--compiler_option is {text!r}; expected NAME=VALUE")
    if value.lower() in ("true", "false"):
        return name, value.lower() == "true"
    return name, int(value) if value.lstrip("-").isdigit() else value
