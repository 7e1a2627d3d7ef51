"""`glm-jax COMMAND ...`: finds the command, runs it, and turns errors into one sentence."""

from __future__ import annotations

import argparse
import contextlib
import errno
import io
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from typing import NoReturn, TextIO

from glm_jax import environment
from glm_jax.cli import (
    chat,
    compile,
    convert,
    evaluate,
    fill,
    finetune,
    hosts,
    inspect,
    parity,
    prepare,
    pretrain,
    serve,
    sweep,
    tokenizer,
)
from glm_jax.errors import RunError, UsageError

COMMANDS = (
    tokenizer,
    prepare,
    pretrain,
    evaluate,
    finetune,
    sweep,
    fill,
    chat,
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
    """Runs one command and returns its exit code: 0 done, 1 failed, 2 bad usage.

    Raises:
      SystemExit: a help text was asked for, and is printed.
    """
    environment.leave_out_keras()
    environment.collect_garbage_rarely()
    _set_streams()
    try:
        try:
            parsed = parse(sys.argv[1:] if arguments is None else arguments)
            with _showing_notes():
                return parsed.run(parsed)
        finally:
            # Here, where a full disk or a reader that has gone is still reported.
            sys.stdout.flush()
    except UsageError as error:
        return _complain(error, 2)
    except RunError as error:
        return _complain(error, 1)
    except KeyboardInterrupt:
        return _complain("interrupted", 130)
    except BrokenPipeError:
        # The reader of the output has gone, so that there is no one to report this to.
        _discard(sys.stdout)
        return 1
    except UnicodeError as error:
        return _complain(f"text that can't be read or written: {error}", 2)
    except OverflowError as error:
        return _complain(f"a number is out of range: {error}", 2)
    except RecursionError:
        return _complain("the input is nested too deeply", 2)
    except MemoryError as error:
        return _complain(f"out of memory: {error}".removesuffix(": "), 1)
    except OSError as error:
        return _complain(_describe(error), 1)


def _set_streams() -> None:
    """Opens standard streams that were closed, and sets what text in them is.

    Standard input is UTF-8 whatever the locale is, and bad bytes in it are errors. What the
    encoding of standard output lacks is written as an escape: no result is lost for a letter.
    """
    # In the order of their numbers, which the next file to be opened would get otherwise.
    if sys.stdin is None:
        sys.stdin = open(os.devnull, encoding="utf-8")  # noqa: SIM115
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    if isinstance(sys.stdin, io.TextIOWrapper) and not sys.stdin.isatty():
        sys.stdin.reconfigure(encoding="utf-8-sig", errors="strict")
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


@contextlib.contextmanager
def _showing_notes() -> Iterator[None]:
    """Shows what is logged on a checkpoint, as a line on standard error like those of errors."""
    logger = logging.getLogger("glm_jax.convert")
    handler, propagate = logging.StreamHandler(sys.stderr), logger.propagate
    handler.setFormatter(logging.Formatter("glm-jax: %(message)s"))
    logger.addHandler(handler)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagate


def _describe(error: OSError) -> str:
    """What the system could not do, and with which file."""
    if error.strerror is None:
        return " ".join(str(error).split()) or type(error).__name__
    files = [os.fsdecode(name) for name in (error.filename, error.filename2) if name is not None]
    if not files and error.errno in (errno.ENOSPC, errno.EIO):
        # Without a file's name it is mostly the output, which Python would try to write again.
        _discard(sys.stdout)
    return ": ".join([*files, error.strerror])


def _discard(stream: TextIO) -> None:
    """Sends what is still to be written to a standard stream nowhere."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


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
    try:
        print(f"glm-jax: {message}", file=sys.stderr, flush=True)
    except OSError:  # the exit code remains
        _discard(sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
