"""Look at a batch of a run exactly as the model gets it.

    glm-jax inspect --gin_file=configs/runs/demo.gin --step=3 --row=0 --picture=example.png

Prints the examples of one step: Part A with its masks, Part B, both rows of positions and the
targets. With --picture the attention mask and the positions of one example are drawn.
"""

from __future__ import annotations

import argparse
from functools import partial

from glm_jax.errors import UsageError
from glm_jax.io.files import check_new_file
from glm_jax.io.paths import resolve_path
from glm_jax.validation import MAX_INTEGER

HELP = "show any batch of any run, in the terminal and as a picture"
TAKES_GIN = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's flags."""
    parser.add_argument(
        "--gin_file", action="append", required=True, metavar="FILE", help="configuration to read"
    )
    parser.add_argument("--step", type=int, default=0, metavar="K", help="batch number, from 0")
    parser.add_argument("--row", type=int, metavar="R", help="only this example of the batch")
    parser.add_argument("--split", default="train", help="part of the store to read")
    parser.add_argument(
        "--picture",
        type=partial(resolve_path, name="--picture"),
        metavar="PNG",
        help="draw one example there",
    )


def run(arguments: argparse.Namespace) -> int:
    """Makes the batch again and shows it."""
    if arguments.step < 0:
        raise UsageError(f"--step is {arguments.step}; expected 0 or more")
    if arguments.picture:
        check_new_file(arguments.picture, "--picture")

    from rich.console import Console

    from glm_jax.configure import read_configuration
    from glm_jax.data.batches.inputs import open_inputs
    from glm_jax.data.inspect.picture import draw_example
    from glm_jax.data.inspect.terminal import render_example

    config = read_configuration(arguments.gin_file, arguments.bindings)
    num_steps = MAX_INTEGER // config.data.batch_size
    if arguments.step >= num_steps:
        raise UsageError(f"--step is {arguments.step}; expected at most {num_steps - 1}")
    row = arguments.row
    if row is not None and not 0 <= row < config.data.batch_size:
        raise UsageError(f"--row is {row}; expected 0 to {config.data.batch_size - 1}")
    inputs = open_inputs(
        config.data, config.blanks, config.model.vocab_size, config.evaluation_blanks
    )
    rows = range(config.data.batch_size) if row is None else range(row, row + 1)
    batch = inputs.read_rows(arguments.split, arguments.step, rows)
    console = Console()
    for number, in_batch in enumerate(rows):
        example = {name: values[number] for name, values in batch.items()}
        console.rule(f"step {arguments.step}, row {in_batch}")
        console.print(render_example(example, inputs.tokenizer))
    if arguments.picture:
        example = {name: values[0] for name, values in batch.items()}
        draw_example(example, inputs.tokenizer, arguments.picture)
        console.print(f"drew row {rows[0]} to {arguments.picture}", highlight=False, soft_wrap=True)
    return 0
