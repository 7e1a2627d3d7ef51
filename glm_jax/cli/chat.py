"""Talk with a model.

    glm-jax chat path/to/chatglm-6b
    glm-jax chat runs/demo --temperature=0
    printf '你好\\n晚上睡不着应该怎么办\\n' | glm-jax chat path/to/chatglm-6b

In a terminal, answers appear while they grow and are shown as Markdown; /help lists the commands. A
message of several lines stands between two lines of three quotes. Without a terminal, every line of
standard input is a message or a command, and answers are printed as plain text.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from functools import partial

from glm_jax.cli.fill import add_checkpoint_arguments, load_filler
from glm_jax.io.paths import resolve_path

HELP = "talk with a model in the terminal"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's flags."""
    add_checkpoint_arguments(parser)
    group = parser.add_argument_group("how answers are generated")
    real = {"type": float, "metavar": "X"}
    integer = {"type": int, "metavar": "N"}
    group.add_argument("--temperature", **real, help="0 takes the most probable tokens (0.95)")
    group.add_argument("--top_p", **real, help="draws from those that have X of the mass (0.7)")
    group.add_argument("--top_k", **integer, help="draws from the N most probable; 0 from all (50)")
    group.add_argument(
        "--max_length", **integer, help="tokens of a prompt and its answer together (2048)"
    )
    group.add_argument("--seed", **integer, help="of the sampling (another one each time)")
    group.add_argument(
        "--literal",
        dest="special_tokens",
        action="store_false",
        default=None,
        help="read [MASK], <sop> and the like in messages as plain text",
    )
    parser.add_argument(
        "--load",
        type=partial(resolve_path, name="--load"),
        metavar="F",
        help="a saved conversation to start with",
    )


def run(arguments: argparse.Namespace) -> int:
    """Loads the checkpoint and answers until the input ends."""
    from glm_jax.chat.settings import ChatSettings
    from glm_jax.chat.transcript import load_turns

    names = [field.name for field in dataclasses.fields(ChatSettings)]
    given = {name: getattr(arguments, name) for name in names}
    settings = ChatSettings(**{name: v for name, v in given.items() if v is not None})
    turns = [] if arguments.load is None else load_turns(arguments.load)
    filler = load_filler(arguments)

    from glm_jax.chat.session import ChatSession
    from glm_jax.cli.chat_repl import ChatRepl

    repl = ChatRepl(ChatSession(filler), settings, turns)
    if sys.stdin.isatty():
        return repl.converse()
    return repl.answer_lines(sys.stdin)
