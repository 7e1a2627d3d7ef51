"""Train a tokenizer, or look at what any tokenizer does.

    glm-jax tokenizer train my_texts/ more.jsonl.gz --out=tokenizers/mine --vocab_size=32000
    glm-jax tokenizer show tokenizers/mine "A text with a [MASK]."
    glm-jax tokenizer show gpt2 vocab.json merges.txt "A text with a [MASK]." --task_mask

`train` makes a SentencePiece model of SOURCEs (those of `glm-jax prepare`) with all of GLM's
special tokens. `show` takes a folder that has a saved tokenizer (a store, a run), or a kind with
its files, or with a folder that has them; it prints the special tokens, then every text as ids and
pieces.
The kinds are bert, bert-cased, gpt2, roberta, chinese, sentencepiece and huggingface.
"""

from __future__ import annotations

import argparse
import json
import time
from functools import partial
from pathlib import Path

from glm_jax.errors import RunError, UsageError
from glm_jax.io.atomic import new_folder
from glm_jax.io.paths import local_path, resolve_path

HELP = "train a SentencePiece tokenizer, or show what any tokenizer does"

TRAIN_FLAGS = ("out", "vocab_size", "text_key", "sample_lines", "overwrite")
SHOW_FLAGS = ("task_mask", "decoder_mask", "fix_command_token", "sentinels")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's flags; those not given stay None, so that misplaced ones are noticed."""
    parser.add_argument("action", choices=("train", "show"), help="what to do")
    parser.add_argument(
        "arguments",
        nargs="+",
        metavar="ARGUMENT",
        help="train: SOURCE...; show: FOLDER TEXT..., or KIND FILE... TEXT...",
    )
    train = parser.add_argument_group("train")
    train.add_argument(
        "--out",
        type=partial(resolve_path, name="--out"),
        metavar="FOLDER",
        help="new folder of the tokenizer",
    )
    train.add_argument(
        "--vocab_size", type=int, metavar="N", help="pieces of text, special tokens not counted"
    )
    train.add_argument("--text_key", metavar="KEY", help="key of the text (default: text)")
    train.add_argument(
        "--sample_lines",
        type=int,
        metavar="N",
        help="lines to train on, drawn evenly from all (default: 500000)",
    )
    train.add_argument(
        "--overwrite", action="store_true", default=None, help="replace a tokenizer that is there"
    )
    show = parser.add_argument_group("show, of a kind")
    for name, added in (
        ("task_mask", "add the mask tokens sMASK and gMASK"),
        ("decoder_mask", "add dBLOCK"),
        ("fix_command_token", "kind chinese: the table without the collision of eop and gMASK"),
    ):
        show.add_argument(f"--{name}", action="store_true", default=None, help=added)
    show.add_argument("--sentinels", type=int, metavar="N", help="add N pairs of MASK and sop")


def run(arguments: argparse.Namespace) -> int:
    """Trains or shows."""
    misplaced = SHOW_FLAGS if arguments.action == "train" else TRAIN_FLAGS
    for name in misplaced:
        if getattr(arguments, name) is not None:
            raise UsageError(f"--{name} means nothing to `glm-jax tokenizer {arguments.action}`")
    return train(arguments) if arguments.action == "train" else show(arguments)


def train(arguments: argparse.Namespace) -> int:
    """Trains a tokenizer on all lines but some, measures it on those, and reports."""
    for name in ("out", "vocab_size"):
        if getattr(arguments, name) is None:
            raise UsageError(f"`glm-jax tokenizer train` needs --{name}")
    for name in ("vocab_size", "sample_lines"):
        value = getattr(arguments, name)
        if value is not None and value < 1:
            raise UsageError(f"--{name} is {value}; expected at least 1")
    out = local_path(resolve_path(arguments.out, "--out"), "--out")
    check = partial(check_destination, out, bool(arguments.overwrite))
    check()

    from rich.console import Console

    from glm_jax.data.sources.corpus import documents
    from glm_jax.data.sources.document import ReadStats
    from glm_jax.tokenizer import train_sentencepiece
    from glm_jax.tokenizer.held_out import HeldOutLines

    stats, held_out, size = ReadStats(), HeldOutLines(), Size()
    source = documents(arguments.arguments, text_key=arguments.text_key or "text", stats=stats)
    start = time.perf_counter()
    try:
        # Two trainings to one folder would overwrite each other's files.
        with (
            Console(stderr=True).status(f"training {arguments.vocab_size:,} pieces"),
            new_folder(out, check) as folder,
        ):
            tokenizer = train_sentencepiece(
                held_out.taken_from(size.counted(source)),
                folder,
                vocab_size=arguments.vocab_size,
                sample_lines=arguments.sample_lines or 500_000,
            )
    except OSError as error:
        raise RunError(f"the tokenizer can't be written to {arguments.out}: {error}") from error
    print(f"text        {size.documents:,} documents, {size.num_bytes / 1e6:.1f} MB")
    for line in stats.lines():
        print(f"            {line}")
    print(f"trained     in {time.perf_counter() - start:.1f} s")
    print_size(tokenizer)
    measured = held_out.measure(tokenizer)
    if measured is None:
        print("held out    nothing: the text has too few lines")
    else:
        print(
            f"held out    {measured.num_lines:,} lines of {measured.num_bytes:,} bytes: "
            f"{measured.bytes_per_token:.2f} bytes a token"
        )
    print(f"tokenizer   {arguments.out}")
    return 0


def check_destination(out: Path, overwrite: bool) -> None:
    """Makes sure that a tokenizer can be written to ``out``.

    Raises:
      UsageError: one is there and not to be replaced, or something else.
    """
    from glm_jax.tokenizer.glm_tokenizer import DESCRIPTION_FILE

    if (out / DESCRIPTION_FILE).is_file():
        if not overwrite:
            raise UsageError(
                f"there is a tokenizer in {out} already; name another folder or give --overwrite"
            )
        # The folder is replaced as a unit.
        try:
            own = {DESCRIPTION_FILE, *json.loads((out / DESCRIPTION_FILE).read_text())["files"]}
        except (ValueError, KeyError) as error:
            raise UsageError(f"the tokenizer in {out} is damaged; remove it first") from error
        others = sorted(path.name for path in out.iterdir() if path.name not in own)
        if others:
            raise UsageError(f"--out is {out}, which has more than a tokenizer: {others[0]}")
    elif out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise UsageError(f"--out is {out}, which exists and is neither a tokenizer nor empty")


class Size:
    """Counts documents as they pass."""

    def __init__(self) -> None:
        self.documents = 0
        self.num_bytes = 0

    def counted(self, documents):
        """The texts of documents."""
        for document in documents:
            self.documents += 1
            self.num_bytes += document.num_bytes
            yield document.text


def show(arguments: argparse.Namespace) -> int:
    """Prints the special tokens, and every text as ids and pieces."""
    tokenizer, texts = find_tokenizer(arguments)
    print_size(tokenizer)
    print(f"fingerprint {tokenizer.fingerprint}")
    print("\nid      name        written")
    for name, id in tokenizer.special.items():
        others = [other for other in tokenizer.special if tokenizer.special[other] == id]
        shared = "" if len(others) == 1 else f"  (one id for {', '.join(others)})"
        print(f"{id:<7} {name:<11} {printable(tokenizer.piece(id))}{shared}")
    for text in texts:
        ids = tokenizer.encode(text)
        print(f"\ntext    {printable(text)}")
        print(f"ids     {' '.join(map(str, ids))}")
        print(f"pieces  {' | '.join(printable(tokenizer.piece(id)) for id in ids)}")
        print(f"decoded {printable(tokenizer.decode(ids))}")
        num_bytes = len(text.encode(errors="replace"))
        print(f"        {len(ids)} tokens for {num_bytes} bytes")
    return 0


def find_tokenizer(arguments: argparse.Namespace):
    """The tokenizer that the first arguments name, and the texts that are the others."""
    from glm_jax.tokenizer import load_tokenizer
    from glm_jax.tokenizer.load import KINDS

    name, *rest = arguments.arguments
    number = 0
    if name in KINDS:
        number = 1 if rest and resolve_path(rest[0], "FILE").is_dir() else len(KINDS[name].files)
    options = {flag: getattr(arguments, flag) for flag in SHOW_FLAGS}
    options = {flag: value for flag, value in options.items() if value is not None}
    return load_tokenizer(name, *rest[:number], **options), rest[number:]


def print_size(tokenizer) -> None:
    """One line on the vocabulary."""
    print(
        f"vocabulary  {tokenizer.vocab_size:,} tokens with the special ones, "
        f"{tokenizer.padded_vocab_size:,} rows of a word embedding"
    )


def printable(text: str) -> str:
    """``text`` on one line: what can't be seen is written as Python writes it."""
    return "".join(
        character if character.isprintable() else repr(character)[1:-1] for character in text
    )
