"""The flags that describe a tokenizer by its kind and files, for every command that takes one."""

from __future__ import annotations

import argparse

from glm_jax.errors import UsageError

TOKENIZER_HELP = (
    "a SentencePiece .model file, a folder or URL (store, run) that has a tokenizer, or "
    "a kind: bert, bert-cased, gpt2, roberta, chinese, sentencepiece, huggingface, chatglm"
)


def add_kind_arguments(parser: argparse._ActionsContainer) -> None:
    """What goes with `--tokenizer`, where that is a kind."""
    parser.add_argument(
        "--tokenizer_files",
        metavar="F[,F]",
        help="files of the tokenizer's kind, or the folder that has them",
    )
    parser.add_argument("--task_mask", action="store_true", help="add the masks sMASK and gMASK")
    parser.add_argument("--decoder_mask", action="store_true", help="add dBLOCK")
    parser.add_argument(
        "--fix_command_token", action="store_true", help="kind chinese: the table without collision"
    )
    parser.add_argument("--sentinels", type=int, default=0, metavar="N", help="add N sentinels")


def find_tokenizer(arguments: argparse.Namespace):
    """The tokenizer that the flags describe; None if one is to be trained.

    A .model file by itself gets all mask tokens.
    """
    from glm_jax.io.hub import checkpoint_path
    from glm_jax.tokenizer import load_tokenizer
    from glm_jax.tokenizer.load import KINDS

    name: str | None = arguments.tokenizer
    options = {
        option: getattr(arguments, option)
        for option in ("task_mask", "decoder_mask", "fix_command_token", "sentinels")
        if getattr(arguments, option)
    }
    if name is not None and name in KINDS:
        if arguments.tokenizer_files is None:
            raise UsageError(
                f"--tokenizer={name} needs --tokenizer_files: its "
                f"{' and its '.join(KINDS[name].files)}, or the folder that has them"
            )
        return load_tokenizer(name, *arguments.tokenizer_files.split(","), **options)
    if arguments.tokenizer_files is not None or options:
        given = options if arguments.tokenizer_files is None else ["tokenizer_files", *options]
        flags = ", ".join(f"--{flag}" for flag in given)
        raise UsageError(f"{flags} needs --tokenizer to be one of the kinds {', '.join(KINDS)}")
    if name is None:
        return None
    path = checkpoint_path(name, "--tokenizer")
    if path.is_dir():
        return load_tokenizer(path)
    if not path.is_file():
        raise UsageError(
            f"--tokenizer is {name}, which is neither a file nor a folder "
            f"nor one of the kinds {', '.join(KINDS)}"
        )
    return load_tokenizer("sentencepiece", path, task_mask=True, decoder_mask=True)
