"""Fill the blanks of texts.

    glm-jax fill runs/demo "The function returns a [MASK] of strings."

[MASK] stands for a few words, [sMASK] for a sentence, [gMASK] at the end for what comes next. A
text without any of them is written on. Without TEXT, one text a line is read from standard input.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from glm_jax.errors import UsageError

HELP = "fill [MASK], [sMASK] and [gMASK] in texts"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's flags."""
    parser.add_argument("checkpoint", metavar="CHECKPOINT", type=Path, help="a run folder")
    parser.add_argument("texts", metavar="TEXT", nargs="*", help="a text with blanks")
    parser.add_argument(
        "--max_blank_length", type=int, default=64, metavar="N", help="most tokens a blank may take"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object a text")


def run(arguments: argparse.Namespace) -> int:
    """Loads the checkpoint, fills, prints."""
    from rich.console import Console
    from rich.text import Text

    from glm_jax.generate.fill import fill
    from glm_jax.generate.settings import Sampling
    from glm_jax.loading import load_glm
    from glm_jax.tokenizer import load_tokenizer

    sampling = Sampling(max_blank_length=arguments.max_blank_length)
    if not arguments.checkpoint.exists():
        raise UsageError(f"there is no checkpoint at {arguments.checkpoint}")
    tokenizer = load_tokenizer(str(arguments.checkpoint))
    texts = arguments.texts or [line.rstrip("\n") for line in sys.stdin if line.strip()]
    if not texts:
        raise UsageError("no text to fill: give TEXT arguments, or lines on standard input")
    model, params = load_glm(arguments.checkpoint)
    console = Console(soft_wrap=True)
    for filled in fill(model, params, tokenizer, texts, sampling=sampling):
        if arguments.json:
            blanks = [{"ids": list(blank.ids), "text": blank.text} for blank in filled.blanks]
            print(json.dumps({"text": filled.text, "blanks": blanks}, ensure_ascii=False))
        else:
            console.print(Text(filled.text))
    return 0
