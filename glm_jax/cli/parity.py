"""Compare two checkpoints: do they give the same numbers, and from which layer on don't they?

    glm-jax parity checkpoints/glm-2b glm-2b
    glm-jax parity glm-2b converted-back --inputs=batch.npz --tolerance=1e-5 --out=report

A and B are checkpoints of any kind: the original code's, a Hugging Face folder, or a run folder.
Both run on the same inputs in float32; what was made by PyTorch runs in PyTorch where it is
installed. Where the same weights differ by more than the tolerance, both run again in float64,
which shows whether it is float32's rounding. The table has the largest difference after the
embeddings and after every layer, and what it does to the distribution over tokens. Exits with 1
where a difference is beyond the tolerance.

--inputs takes a .npz file with tokens [B, L], position_ids [B, 2, L] and attention_mask, which is
the length of Part A, [B] or [1], or a 0/1 mask [B, 1, L, L].
"""

from __future__ import annotations

import argparse
import math
from functools import partial

from glm_jax.errors import RunError, UsageError
from glm_jax.io.hub import checkpoint_path
from glm_jax.io.paths import resolve_path

HELP = "compare what two checkpoints compute, layer by layer"
DEFAULT_TOLERANCE = 1e-4
DEFAULT_BATCH_SIZE = 2
MAX_COUNT = 2**31 - 1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's flags."""
    for name, metavar, described in (
        ("first", "A", "a checkpoint of any kind"),
        ("second", "B", "another one, of any kind"),
        ("--inputs", "NPZ", "a batch (random tokens)"),
    ):
        path = partial(resolve_path, name=name)
        if not name.startswith("--"):
            path = partial(checkpoint_path, name=metavar)
        parser.add_argument(name, metavar=metavar, type=path, help=described)
    parser.add_argument("--seed", type=int, metavar="S", help="of random tokens (0)")
    parser.add_argument(
        "--batch_size", type=int, metavar="B", help=f"random sequences ({DEFAULT_BATCH_SIZE})"
    )
    parser.add_argument("--length", type=int, metavar="L", help="tokens in each (64)")
    parser.add_argument(
        "--tolerance",
        type=float,
        default=DEFAULT_TOLERANCE,
        metavar="T",
        help=f"largest absolute difference that passes ({DEFAULT_TOLERANCE:g})",
    )
    parser.add_argument(
        "--num_attention_heads",
        type=int,
        metavar="H",
        help="heads, where a checkpoint doesn't record them (as the other, or hidden size / 64)",
    )
    parser.add_argument(
        "--base",
        metavar="CHECKPOINT",
        help="what A or B, where it holds a prefix of P-tuning v2 only, was trained for",
    )
    parser.add_argument(
        "--out",
        type=partial(resolve_path, name="--out"),
        default="parity",
        metavar="FOLDER",
        help="where parity.json and parity.png go (parity)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Compares, prints, writes."""
    _check(arguments)

    from rich.console import Console

    from glm_jax.parity.files import write_report
    from glm_jax.parity.run import RandomInputs, check_parity

    drawn = RandomInputs(
        seed=arguments.seed or 0,
        batch_size=arguments.batch_size or DEFAULT_BATCH_SIZE,
        length=arguments.length,
    )
    report = check_parity(
        arguments.first,
        arguments.second,
        arguments.inputs or drawn,
        arguments.tolerance,
        arguments.num_attention_heads,
        arguments.base,
    )
    console = Console(soft_wrap=True, highlight=False, markup=False)
    for line in report.heading():
        console.print(line)
    console.print(report.table())
    for path in write_report(report, arguments.out):
        console.print(f"wrote   {path}")
    if not report.passed:
        raise RunError(report.verdict())
    console.print(report.verdict())
    return 0


def _check(arguments: argparse.Namespace) -> None:
    """Raises UsageError for flags that are out of range or don't go together."""
    for name in ("batch_size", "length", "num_attention_heads"):
        value = getattr(arguments, name)
        if value is not None and value < 1:
            raise UsageError(f"--{name} is {value}; expected at least 1")
        if value is not None and value > MAX_COUNT:
            raise UsageError(f"--{name} is {value}; expected at most {MAX_COUNT}")
    if arguments.seed is not None and arguments.seed < 0:
        raise UsageError(f"--seed is {arguments.seed}; expected at least 0")
    if not (math.isfinite(arguments.tolerance) and arguments.tolerance > 0):
        raise UsageError(f"--tolerance is {arguments.tolerance}; expected a number above 0")
    for name in ("seed", "batch_size", "length"):
        if arguments.inputs is not None and getattr(arguments, name) is not None:
            raise UsageError(f"--{name} is for random tokens; it can't go with --inputs")
    if arguments.out.exists() and not arguments.out.is_dir():
        raise UsageError(f"--out is {arguments.out}, which is a file; expected a folder")
