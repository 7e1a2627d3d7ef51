"""Turn text into a token store.

    glm-jax prepare my_texts/ more/*.jsonl.gz --out=stores/mine --train_tokenizer=32000
    glm-jax prepare tfds:wikipedia/20230601.en --out=stores/wiki --tokenizer=stores/mine

A SOURCE is a folder, a glob or a file of .txt (a document each) or .jsonl (a document a line), both
also as .gz; tfds:NAME[/CONFIG], a data set that TensorFlow Datasets has prepared before; or
embedded, the English prose that comes with Python and its packages.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path

from glm_jax.errors import UsageError

HELP = "turn folders, files or data sets of text into a token store"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's flags."""
    parser.add_argument("sources", nargs="+", metavar="SOURCE", help="where text comes from")
    parser.add_argument("--out", required=True, type=Path, metavar="STORE", help="folder to write")
    tokenizer = parser.add_mutually_exclusive_group(required=True)
    tokenizer.add_argument(
        "--tokenizer",
        metavar="PATH",
        help="a SentencePiece .model file, or a folder (store, run) that has a tokenizer",
    )
    tokenizer.add_argument(
        "--train_tokenizer", type=int, metavar="PIECES", help="train one with so many pieces"
    )
    parser.add_argument("--text_key", default="text", help="key of the text (default: text)")
    parser.add_argument(
        "--validation_fraction",
        type=float,
        default=0.01,
        metavar="F",
        help="share of the documents kept for validation (default: 0.01)",
    )
    parser.add_argument(
        "--workers",
        type=int,
        default=os.cpu_count() or 1,
        metavar="N",
        help="tokenizing processes (default: one a core)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace a store that is there")


def run(arguments: argparse.Namespace) -> int:
    """Finds or trains the tokenizer, writes the store, reports."""
    from rich.console import Console

    from glm_jax.data.prepare import check_destination, prepare

    console = Console()
    check_destination(arguments.out, arguments.overwrite)
    with tempfile.TemporaryDirectory() as folder:
        if arguments.tokenizer is not None:
            tokenizer = find_tokenizer(arguments.tokenizer)
        else:
            tokenizer = train_tokenizer(arguments, folder, console)
        with TextProgress(console) as progress:
            report = prepare(
                arguments.sources,
                arguments.out,
                tokenizer,
                validation_fraction=arguments.validation_fraction,
                text_key=arguments.text_key,
                workers=arguments.workers,
                overwrite=arguments.overwrite,
                progress=progress.show,
            )
    for line in report.lines():
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    console.print(f"token store  {arguments.out}", highlight=False, markup=False, soft_wrap=True)
    return 0


def find_tokenizer(path: str):
    """The tokenizer of a .model file, with all mask tokens, or the one saved in a folder."""
    from glm_jax.tokenizer import load_tokenizer

    if Path(path).is_dir():
        return load_tokenizer(path)
    if not Path(path).is_file():
        raise UsageError(f"--tokenizer is {path}, which is neither a file nor a folder")
    return load_tokenizer("sentencepiece", path, task_mask=True, decoder_mask=True)


def train_tokenizer(arguments: argparse.Namespace, folder: str, console):
    """A tokenizer trained on the sources."""
    from glm_jax.data.corpus import documents
    from glm_jax.tokenizer import train_sentencepiece

    with console.status(f"training a tokenizer of {arguments.train_tokenizer} pieces"):
        texts = (doc.text for doc in documents(arguments.sources, text_key=arguments.text_key))
        tokenizer = train_sentencepiece(texts, folder, vocab_size=arguments.train_tokenizer)
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
