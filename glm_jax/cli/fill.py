"""Fill the blanks of texts.

    glm-jax fill runs/demo "The function returns a [MASK] of strings."
    glm-jax fill runs/demo --file=texts.txt --samples=3 --top_p=0.9 --json
    glm-jax fill path/to/blocklm-10b --tokenizer=gpt2 --tokenizer_files=vocabs/ --task_mask
    glm-jax fill runs/demo

[MASK] is a blank of a few words, [sMASK] for a sentence, [gMASK] at the end for what comes next. A
text without any of them is continued; with a run that was finetuned to write texts, it is what the
run was finetuned for, such as an article to summarise, and the run's search is the default. Tasks
with several inputs take a JSON object ({"context": "...", "question": "..."}). Without TEXT, one
text per line is read from standard input; in a terminal, an interactive session starts that shows
every token when it is generated.

A line of a file or of standard input that is too long for the model is reported with its number
(with --json as {"line": N, "error": ...} in its place); the others are filled, and the exit code
is 1.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import shlex
import sys
import time
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from glm_jax.cli.tokenizer_flags import TOKENIZER_HELP, add_kind_arguments, find_tokenizer
from glm_jax.errors import RunError, UsageError
from glm_jax.io.encodings import LONE_SURROGATE, decode_text, text_lines
from glm_jax.io.hub import checkpoint_path
from glm_jax.io.paths import resolve_path

if TYPE_CHECKING:
    from etils import epath

    from glm_jax.generate.fill import FilledText, Filler
    from glm_jax.generate.settings import Sampling
    from glm_jax.tokenizer import Tokenizer

HELP = "fill [MASK], [sMASK] and [gMASK] in texts"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's flags."""
    add_checkpoint_arguments(parser)
    parser.add_argument("texts", metavar="TEXT", nargs="*", help="a text with blanks")
    parser.add_argument(
        "--file",
        type=partial(resolve_path, name="--file"),
        metavar="F",
        help="a file with one text a line",
    )
    _add_sampling_arguments(parser.add_argument_group("how blanks are filled"))
    parser.add_argument(
        "--json", action="store_true", help="print one JSON object a text, with all probabilities"
    )
    parser.add_argument(
        "--verbose", action="store_true", help="report the time and the number of compilations"
    )


def add_checkpoint_arguments(parser: argparse.ArgumentParser) -> None:
    """The checkpoint, and the flags that `load_filler` reads."""
    parser.add_argument(
        "checkpoint",
        metavar="CHECKPOINT",
        type=partial(checkpoint_path, name="CHECKPOINT"),
        help="a run folder, a checkpoint of the original code, a Hugging Face folder, or a "
        "repository of the Hub, hf:OWNER/NAME",
    )
    checkpoint = parser.add_argument_group("what a checkpoint of other software does not record")
    checkpoint.add_argument("--tokenizer", metavar="T", help=TOKENIZER_HELP)
    add_kind_arguments(checkpoint)
    checkpoint.add_argument(
        "--num_attention_heads", type=int, metavar="H", help="hidden size / 64 by default"
    )
    checkpoint.add_argument(
        "--base",
        type=partial(resolve_path, name="--base"),
        metavar="CHECKPOINT",
        help="what CHECKPOINT, a prefix of P-tuning v2 only, was trained for",
    )


def _add_sampling_arguments(group: argparse._ArgumentGroup) -> None:
    integer = {"type": int, "metavar": "N"}
    real = {"type": float, "metavar": "X"}
    group.add_argument("--max_blank_length", **integer, help="maximum tokens per blank (64)")
    group.add_argument("--min_blank_length", **integer, help="minimum tokens per blank (0)")
    group.add_argument("--temperature", **real, help="0 is greedy, the default; above, draws")
    group.add_argument("--top_k", **integer, help="draws from the N most probable tokens")
    group.add_argument("--top_p", **real, help="draws from those that have X of the probability")
    group.add_argument("--samples", **integer, help="fills every text N times")
    group.add_argument("--seed", **integer, help="of the sampling (0)")
    group.add_argument("--beams", **integer, help="searches with N beams")
    group.add_argument("--length_penalty", **real, help="score = log-probability / length^X (0)")
    group.add_argument(
        "--early_stopping", action="store_true", default=None, help="ends a search at N complete"
    )
    group.add_argument("--no_repeat_ngram", **integer, help="n-grams of N tokens are not repeated")
    group.add_argument(
        "--repeat_scope", metavar="S", help="scope of --no_repeat_ngram: 'blank' or 'text'"
    )


def given_settings(arguments: argparse.Namespace) -> dict[str, Any]:
    """The settings of `Sampling` that were given, checked.

    Raises:
      UsageError: one is out of its range, or two exclude each other.
    """
    from glm_jax.generate.settings import Sampling

    names = [field.name for field in dataclasses.fields(Sampling)]
    values = {name: getattr(arguments, name) for name in names}
    given = {name: value for name, value in values.items() if value is not None}
    Sampling(**given)  # before anything is loaded
    return given


def run(arguments: argparse.Namespace) -> int:
    """Loads the checkpoint, fills, prints."""
    from glm_jax.cli.compile_counter import counted_compilations

    given = given_settings(arguments)
    texts = read_texts(arguments)
    filler = load_filler(arguments)
    if texts is None:
        from glm_jax.cli.fill_repl import converse

        return converse(filler, filler.sampling("", given))
    errors = {} if arguments.texts else refused_lines(filler, texts, given)
    kept = {number: text for number, text in texts.items() if number not in errors}
    started = time.perf_counter()
    with counted_compilations() as compilations:
        of_line = fill_texts(filler, kept, given)
    seconds = time.perf_counter() - started
    results = list(of_line.values())
    for number in texts:
        if number in errors:
            print_error(number, errors[number], as_json=arguments.json)
        else:
            (print_json if arguments.json else print_text)(of_line[number])
    if arguments.verbose:
        samples = [sample for filled in results for sample in filled.samples or [filled]]
        tokens = sum(len(blank.ids) for sample in samples for blank in sample.blanks)
        print(
            f"{len(kept):,} texts filled with {tokens:,} tokens in {seconds:.1f} s; "
            f"{compilations.count} programs compiled, for {compilations.seconds:.1f} s of it",
            file=sys.stderr,
        )
    if errors:
        raise RunError(f"{len(errors):,} of {len(texts):,} texts could not be filled")
    return 0


def fill_texts(
    filler: Filler, texts: Mapping[int, str], given: Mapping[str, Any]
) -> dict[int, FilledText]:
    """The filled texts by their numbers; those with the same settings are filled together."""
    numbers: dict[Sampling, list[int]] = {}
    for number, text in texts.items():
        numbers.setdefault(filler.sampling(text, given), []).append(number)
    filled = {}
    for sampling, some in numbers.items():
        filled |= zip(some, filler.fill([texts[number] for number in some], sampling), strict=True)
    return filled


def refused_lines(
    filler: Filler, texts: Mapping[int, str], given: Mapping[str, Any]
) -> dict[int, str]:
    """Why texts can't be filled, by their line numbers; the others are left out."""
    errors = {}
    for number, text in texts.items():
        try:
            filler.start(text, filler.sampling(text, given))
        except UsageError as error:
            errors[number] = str(error)
    return errors


def read_texts(arguments: argparse.Namespace) -> dict[int, str] | None:
    """The texts to fill by their line numbers, or in order; None to ask for them one by one.

    Raises:
      UsageError: there are none, or they can't be read or are no UTF-8 text.
    """
    if arguments.file is not None:
        if arguments.texts:
            raise UsageError("give TEXT arguments or --file, not both")
        name = f"--file {arguments.file}"
        try:
            content = arguments.file.read_bytes()
        except OSError as error:
            raise UsageError(f"{name} can't be read: {error}") from error
    elif arguments.texts:
        for text in arguments.texts:
            if LONE_SURROGATE.search(text):
                raise UsageError(f"the text {text!r} is not UTF-8 text")
        return dict(enumerate(arguments.texts, start=1))
    elif sys.stdin.isatty():
        return None
    else:
        # Bytes: as text, Python would take a carriage return for the end of a line.
        name, content = "standard input", sys.stdin.buffer.read()
    lines = text_lines(decode_text(content, name))
    texts = {number: line for number, line in enumerate(lines, start=1) if line.strip()}
    if not texts:
        raise UsageError(f"no text to fill in {name}: expected one text a line")
    return texts


def load_filler(arguments: argparse.Namespace) -> Filler:
    """The model and its tokenizer.

    Raises:
      UsageError: one of them isn't there, or they do not fit.
    """
    from glm_jax.cli.finetuned import finetuned_filler
    from glm_jax.convert.load import load_glm
    from glm_jax.convert.open import check_complete
    from glm_jax.finetune.recorded import run_folder_of
    from glm_jax.finetune.vocabulary import check_vocabulary
    from glm_jax.generate.fill import Filler

    checkpoint = arguments.checkpoint
    if not checkpoint.exists():
        raise UsageError(f"there is no checkpoint at {checkpoint}")
    run = run_folder_of(checkpoint)
    base = arguments.base
    if base is None:
        check_complete(checkpoint)
    tokenizer = find_tokenizer(arguments) or saved_tokenizer(checkpoint, base)
    if run is not None and (filler := finetuned_filler(run, checkpoint, tokenizer)) is not None:
        return filler
    heads = arguments.num_attention_heads
    model, params = load_glm(checkpoint, num_attention_heads=heads, base=base)
    check_vocabulary(tokenizer, model.config.vocab_size, str(checkpoint))
    return Filler(model, params, tokenizer)


def saved_tokenizer(checkpoint: epath.Path, base: epath.Path | None = None) -> Tokenizer:
    """The tokenizer that a checkpoint, or else its base, has in its folder.

    Raises:
      UsageError: it has none, or one that can't be read.
    """
    from glm_jax.tokenizer import load_tokenizer
    from glm_jax.tokenizer.load import NoTokenizerError

    try:
        return load_tokenizer(checkpoint)
    except NoTokenizerError as error:
        if base is not None:
            return saved_tokenizer(base)
        run = next((p for p in list(checkpoint.parents)[:3] if (p / "tokenizer").is_dir()), None)
        named = (
            "--tokenizer: a folder that has one, or a kind with its --tokenizer_files, such as "
            "--tokenizer=gpt2 --tokenizer_files=vocab.json,merges.txt"
        )
        raise UsageError(
            f"{checkpoint} has no saved tokenizer; name one by "
            + (named if run is None else f"--tokenizer={shlex.quote(str(run))}")
        ) from error


def print_error(number: int, message: str, *, as_json: bool) -> None:
    """Reports a line that can't be filled: as JSON among the results, else on standard error."""
    if as_json:
        print(json.dumps({"line": number, "error": message}, ensure_ascii=False))
    else:
        print(f"glm-jax: line {number}: {message}", file=sys.stderr)


def print_json(filled: FilledText) -> None:
    """One line of JSON: the text and its blanks, with every probability."""
    print(json.dumps(dataclasses.asdict(filled), ensure_ascii=False))


def print_text(filled: FilledText) -> None:
    """Prints the text with its filled blanks highlighted, if the terminal supports it."""
    from rich.console import Console

    from glm_jax.cli.fill_repl import highlighted

    console = Console(soft_wrap=True)
    for sample in filled.samples or [filled]:
        console.print(highlighted(sample))
