"""Convert weights between the original PyTorch checkpoints, Hugging Face folders and ours.

    glm-jax convert checkpoints/glm-2b glm-2b
    glm-jax convert glm-2b back --to original --model_parallel_size=4
    glm-jax convert chatglm-6b chatglm-6b-int4 --quantize=int4
    glm-jax convert glm-2b glm-2b-int8 --quantize=int8 --held_out=text.txt

SOURCE is a checkpoint folder of the original code, split over any number of ranks, a Hugging Face
folder of the glm-* family or of ChatGLM-6B, or a run folder. The destination is read back and
compared with the source before it appears. Tensors pass one at a time, so that memory stays small.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping

from glm_jax.cli.tokenizer_flags import TOKENIZER_HELP, add_kind_arguments, find_tokenizer
from glm_jax.errors import UsageError

HELP = "weights between the original PyTorch layouts, Hugging Face folders and ours"
# Of files with weights, where it is not safetensors: as published.
_FILE_FORMATS = {"p_tuning": "bin"}
KINDS = ("native", "original", "huggingface", "p_tuning")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's flags."""
    parser.add_argument("source", metavar="SOURCE", help="a checkpoint of any kind, a path or URL")
    parser.add_argument("destination", metavar="DESTINATION", help="a new folder")
    parser.add_argument(
        "--to",
        default="native",
        choices=KINDS,
        help="what is written; p_tuning: a trained prefix of ChatGLM alone, as published",
    )
    parser.add_argument(
        "--model_parallel_size",
        type=int,
        metavar="N",
        help="files that an original checkpoint is split into (1)",
    )
    parser.add_argument(
        "--num_attention_heads",
        type=int,
        metavar="H",
        help="heads, where the source doesn't record them (hidden size / 64)",
    )
    parser.add_argument(
        "--max_sequence_length",
        type=int,
        metavar="P",
        help="extend the position tables to P",
    )
    parser.add_argument(
        "--new_positions",
        choices=("random", "repeat"),
        help="rows added to the position tables: random (normal, standard deviation 0.02), as in "
        "the original code, or the table's rows repeated from its first (random)",
    )
    parser.add_argument("--seed", type=int, metavar="S", help="of random new positions (0)")
    parser.add_argument(
        "--pad_vocab_to_multiple_of",
        type=int,
        metavar="M",
        help="add rows of zeros to the word embedding up to a multiple of M",
    )
    parser.add_argument(
        "--ignore_extra",
        action="store_true",
        help="leave out tensors that GLM doesn't have, such as heads of a task; the report names "
        "them",
    )
    parser.add_argument(
        "--base",
        metavar="CHECKPOINT",
        help="the ChatGLM checkpoint that SOURCE, a prefix of P-tuning v2, was trained for",
    )
    _add_number_arguments(parser)
    _add_folder_arguments(parser)


def _add_number_arguments(parser: argparse.ArgumentParser) -> None:
    """What numbers are stored as."""
    parser.add_argument(
        "--quantize",
        choices=("int8", "int4", "none"),
        help="quantize the matrices of the layers by rows, or expand quantized ones (none)",
    )
    parser.add_argument(
        "--dtype", choices=("float16", "bfloat16", "float32"), help="of all tensors (as stored)"
    )
    parser.add_argument(
        "--held_out",
        metavar="FILE",
        help="text, a document in every line, on which source and destination are compared",
    )


def _add_folder_arguments(parser: argparse.ArgumentParser) -> None:
    """What is written of a Hugging Face folder besides the weights."""
    parser.add_argument(
        "--file_format",
        choices=("safetensors", "bin"),
        help="files with weights of --to huggingface (safetensors) and p_tuning (bin)",
    )
    parser.add_argument(
        "--published",
        action="store_true",
        help="with --to huggingface: the layout of the published repositories and their code",
    )
    parser.add_argument("--tokenizer", metavar="T", help=f"of --to huggingface: {TOKENIZER_HELP}")
    add_kind_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Converts and reports."""
    _check(arguments)

    from contextlib import contextmanager

    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    from glm_jax.convert.changes import Changes
    from glm_jax.convert.convert import convert
    from glm_jax.convert.positions import DEFAULT_NEW_POSITIONS
    from glm_jax.convert.tensors import DTYPES

    console = Console(stderr=True)

    @contextmanager
    def stages(description: str, num_bytes: int):
        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
        shown = console.is_terminal
        with Progress(
            *columns, TransferSpeedColumn(), console=console, disable=not shown, transient=True
        ) as progress:
            task = progress.add_task(description, total=num_bytes)
            yield lambda done: progress.advance(task, done)

    before = _score(arguments, arguments.source)
    report = convert(
        arguments.source,
        arguments.destination,
        arguments.to,
        stages=stages,
        model_parallel_size=arguments.model_parallel_size or 1,
        changes=Changes(
            dtype=arguments.dtype and DTYPES[arguments.dtype],
            max_sequence_length=arguments.max_sequence_length,
            new_positions=arguments.new_positions or DEFAULT_NEW_POSITIONS,
            seed=arguments.seed or 0,
            pad_vocab_to_multiple_of=arguments.pad_vocab_to_multiple_of,
            quantization=arguments.quantize,
        ),
        num_attention_heads=arguments.num_attention_heads,
        ignore_extra=arguments.ignore_extra,
        base=arguments.base,
        file_format=arguments.file_format or _FILE_FORMATS.get(arguments.to, "safetensors"),
        published=arguments.published,
        tokenizer=find_tokenizer(arguments),
    )
    for line in report.lines():
        print(line)
    if before is not None:
        from glm_jax.language_model.cost import cost_line

        after = _score(arguments, arguments.destination)
        assert after is not None
        print(f"{'held out':12} {cost_line(before, after, arguments.held_out)}")
    return 0


def _score(arguments: argparse.Namespace, checkpoint: str) -> Mapping[str, float] | None:
    """The metrics of a checkpoint on the text of --held_out, where there is one."""
    if arguments.held_out is None:
        return None
    from glm_jax.language_model.cost import score_text

    return score_text(checkpoint, arguments.held_out, arguments.num_attention_heads)


def _check(arguments: argparse.Namespace) -> None:
    """Refuses values that no conversion takes, before anything is imported for one.

    Raises:
      UsageError: there is one.
    """
    names = (
        "model_parallel_size",
        "num_attention_heads",
        "max_sequence_length",
        "pad_vocab_to_multiple_of",
    )
    for name in names:
        value = getattr(arguments, name)
        if value is not None and value < 1:
            raise UsageError(f"--{name} is {value}; expected at least 1")
    if arguments.model_parallel_size is not None and arguments.to != "original":
        raise UsageError(
            f"--model_parallel_size is for --to original; --to {arguments.to} has no ranks"
        )
    if arguments.file_format is not None and arguments.to not in ("huggingface", "p_tuning"):
        raise UsageError(
            f"--file_format is for --to huggingface and p_tuning, but --to is {arguments.to}"
        )
    for name in ("published", "tokenizer"):
        if getattr(arguments, name) and arguments.to != "huggingface":
            raise UsageError(f"--{name} is for --to huggingface, but --to is {arguments.to}")
    for name in ("new_positions", "seed"):
        if getattr(arguments, name) is not None and arguments.max_sequence_length is None:
            raise UsageError(f"--{name} is for --max_sequence_length, which is not given")
    if arguments.held_out is not None and (arguments.base or arguments.to == "p_tuning"):
        raise UsageError("--held_out is for complete networks, not for prefixes of P-tuning v2")
    if arguments.seed is not None and not 0 <= arguments.seed < 1 << 64:
        raise UsageError(f"--seed is {arguments.seed}; expected 0 to 2**64 - 1")
