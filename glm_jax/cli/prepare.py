"""Turn text into a token store.

    glm-jax prepare my_texts/ more/*.jsonl.gz --out=stores/mine --train_tokenizer=32000
    glm-jax prepare tfds:wikipedia/20230601.en --out=stores/wiki --tokenizer=stores/mine
    glm-jax prepare books.parquet --out=stores/books --tokenizer=gpt2 \\
        --tokenizer_files=vocab.json,merges.txt --task_mask --decoder_mask

A SOURCE is a folder, a glob, a file or a URL of .txt (a document each), .jsonl, .ndjson or .json
(a document a line), all also as .gz, .bz2, .xz and .zst, or .parquet (a document a row);
tfds:NAME[/CONFIG], a data set that TensorFlow Datasets has prepared before; or embedded, the
English prose that comes with Python and its packages.

A run that was killed resumes when the same command is given again.
"""

from __future__ import annotations

import argparse
import os
import tempfile

from glm_jax.cli.tokenizer_flags import TOKENIZER_HELP, add_kind_arguments, find_tokenizer
from glm_jax.errors import UsageError

HELP = "turn folders, files or data sets of text into a token store"
LOCAL = "local"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's flags."""
    parser.add_argument("sources", nargs="+", metavar="SOURCE", help="where text comes from")
    parser.add_argument("--out", required=True, metavar="STORE", help="folder or URL to write")
    parser.add_argument("--overwrite", action="store_true", help="replace a store that is there")
    _add_tokenizer_arguments(parser)
    parser.add_argument("--text_key", default="text", help="key of the text (default: text)")
    parser.add_argument(
        "--validation_fraction",
        type=float,
        default=0.01,
        metavar="F",
        help="share of the documents kept for validation (default: 0.01)",
    )
    parser.add_argument(
        "--test_fraction",
        type=float,
        default=0.0,
        metavar="F",
        help="share of the documents kept for a test split (default: 0, no such split)",
    )
    parser.add_argument(
        "--split_by",
        default="auto",
        metavar="S",
        help="splits get complete 'documents', or 'stretches' of long ones; 'auto' (default) takes "
        "stretches where a split would have no document",
    )
    parser.add_argument(
        "--drop_duplicates", action="store_true", help="keep only the first of equal documents"
    )
    parser.add_argument(
        "--filter",
        metavar="MODULE:FUNCTION",
        help="keep the documents for which this function (also FILE.py:FUNCTION) is true",
    )
    parser.add_argument(
        "--workers",
        type=int,
        metavar="N",
        help="processes of this machine (default: one a core)",
    )
    parser.add_argument(
        "--runner",
        default=LOCAL,
        metavar="R",
        help="an Apache Beam runner, such as DirectRunner or DataflowRunner (default: none)",
    )
    parser.add_argument(
        "--beam_options", metavar="OPTIONS", help="the runner's own options, as one string"
    )


def _add_tokenizer_arguments(parser: argparse.ArgumentParser) -> None:
    tokenizer = parser.add_mutually_exclusive_group(required=True)
    tokenizer.add_argument(
        "--tokenizer",
        metavar="T",
        help=TOKENIZER_HELP,
    )
    tokenizer.add_argument(
        "--train_tokenizer", type=int, metavar="PIECES", help="train one with this many pieces"
    )
    add_kind_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Finds or trains the tokenizer, writes the store, reports."""
    from rich.console import Console

    from glm_jax.data.prepare.destination import check_destination
    from glm_jax.data.prepare.run import prepare

    console = Console()
    check_destination(arguments.out, arguments.overwrite)
    with tempfile.TemporaryDirectory() as folder:
        tokenizer = find_tokenizer(arguments)
        runner = find_runner(arguments)
        if tokenizer is None:
            tokenizer = train_tokenizer(arguments, folder, console)
        with TextProgress(console) as progress:
            report = prepare(
                arguments.sources,
                arguments.out,
                tokenizer,
                validation_fraction=arguments.validation_fraction,
                test_fraction=arguments.test_fraction,
                split_by=arguments.split_by,
                text_key=arguments.text_key,
                drop_duplicates=arguments.drop_duplicates,
                filter=arguments.filter,
                runner=runner,
                overwrite=arguments.overwrite,
                progress=progress.show,
            )
    for line in [*report.lines(), f"token store  {arguments.out}"]:
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    return 0


def find_runner(arguments: argparse.Namespace):
    """The processes of this machine, or Apache Beam."""
    if arguments.runner == LOCAL:
        if arguments.beam_options is not None:
            raise UsageError("--beam_options is for Apache Beam; name its runner with --runner")
        from glm_jax.data.prepare.runner import LocalRunner

        return LocalRunner(number_of_cores() if arguments.workers is None else arguments.workers)
    if arguments.workers is not None:
        raise UsageError(
            f"--workers is for this machine; --runner={arguments.runner} has its own options "
            "(--beam_options)"
        )
    try:
        from glm_jax.data.prepare.beam import BeamRunner
    except ImportError as error:
        raise UsageError(
            f"--runner={arguments.runner} needs Apache Beam, which is not installed here; make an "
            "environment with `pip install -r requirements-beam.txt`"
        ) from error
    return BeamRunner(arguments.runner, arguments.beam_options or "")


def number_of_cores() -> int:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def train_tokenizer(arguments: argparse.Namespace, folder: str, console):
    """A tokenizer trained on the sources."""
    from glm_jax.data.sources.corpus import documents
    from glm_jax.tokenizer import train_sentencepiece

    with console.status(f"training a tokenizer of {arguments.train_tokenizer} pieces"):
        texts = (doc.text for doc in documents(arguments.sources, text_key=arguments.text_key))
        try:
            tokenizer = train_sentencepiece(texts, folder, vocab_size=arguments.train_tokenizer)
        except UsageError as error:
            # The flag has a name of its own here.
            raise UsageError(str(error).replace("vocab_size is", "--train_tokenizer is")) from error
    console.print(
        f"trained a tokenizer of {arguments.train_tokenizer} pieces "
        f"({tokenizer.padded_vocab_size} rows of an embedding with its special tokens)",
        highlight=False,
        soft_wrap=True,
    )
    return tokenizer


class TextProgress:
    """A live line of documents and megabytes on a terminal, nothing elsewhere."""

    def __init__(self, console):
        from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        self._bar = Progress(
            SpinnerColumn(),
            TextColumn("tokenizing"),
            BarColumn(bar_width=20),
            TextColumn("{task.fields[documents]:,} documents, {task.fields[megabytes]:.1f} MB"),
            TimeElapsedColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task("", total=None, documents=0, megabytes=0.0)

    def __enter__(self) -> TextProgress:
        self._bar.start()
        return self

    def __exit__(self, *_error) -> None:
        self._bar.stop()

    def show(self, documents: int, num_bytes: int) -> None:
        """Takes the documents and bytes done so far."""
        self._bar.update(self._task, documents=documents, megabytes=num_bytes / 1e6)
