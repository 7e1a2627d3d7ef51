"""`glm-jax COMMAND ...`: finds the command, runs it, and turns errors into one sentence."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from glm_jax.cli import (
    compile,
    convert,
    evaluate,
    fill,
    hosts,
    inspect,
    parity,
    prepare,
    pretrain,
    serve,
    tokenizer,
)
from glm_jax.errors import RunError, UsageError

COMMANDS = (
    tokenizer,
    prepare,
    pretrain,
    evaluate,
    fill,
    serve,
    convert,
    parity,
    inspect,
    compile,
    hosts,
)
GIN_PREFIX = "--gin."


class _Parser(argparse.ArgumentParser):
    """Raises the parser's error, so that it is reported like every other."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message} (see {self.prog} --help)")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code: 0 done, 1 failed, 2 bad usage."""
    # TensorFlow only moves integers here, and would log about oneDNN before it can be silenced.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
    try:
        parsed = parse(sys.argv[1:] if arguments is None else arguments)
        return parsed.run(parsed)
    except UsageError as error:
        return _complain(error, 2)
    except RunError as error:
        return _complain(error, 1)
    except KeyboardInterrupt:
        return _complain("interrupted", 130)
    except BrokenPipeError:
        # The reader of our output has gone; there is nobody to report to.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The command's arguments, with every `--gin.X=Y` collected as `bindings`.

    Raises:
      UsageError: anything that no command knows.
    """
    parser = _Parser(
        prog="glm-jax",
        description="GLM, the General Language Model, in JAX: pretrain, evaluate, fill blanks.",
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for module in COMMANDS:
        name = module.__name__.rpartition(".")[2]
        description = (module.__doc__ or "").strip()
        command = commands.add_parser(
            name,
            help=module.HELP,
            description=description,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        module.add_arguments(command)
        command.set_defaults(run=module.run, takes_gin=hasattr(module, "TAKES_GIN"))
    if not arguments or arguments[0] not in commands.choices:
        parser.parse_args(arguments)  # shows the help, or complains
    # Intermixed, so that flags may be given between a command's arguments.
    parsed, rest = commands.choices[arguments[0]].parse_known_intermixed_args(arguments[1:])
    parsed.bindings = []
    for argument in rest:
        if not (argument.startswith(GIN_PREFIX) and parsed.takes_gin):
            raise UsageError(f"unknown argument {argument!r} (see glm-jax --help)")
        parsed.bindings.append(argument.removeprefix(GIN_PREFIX))
    return parsed


def _complain(message: object, code: int) -> int:
    print(f"glm-jax: {message}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
