"""gin files and flags in, one plain typed configuration out. The only file that imports gin."""

from __future__ import annotations

import ast
import inspect
import io
import os
import re
import tokenize
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import gin
from etils import epath

from glm_jax.errors import UsageError
from glm_jax.finetune.config import FinetuneRunConfig
from glm_jax.generate.decode_config import ChatGLMDecodeConfig, DecodeConfig
from glm_jax.gin_messages import explain
from glm_jax.io.paths import is_url, resolve_path
from glm_jax.language_model.config import LanguageModelRunConfig
from glm_jax.seq2seq.config import Seq2SeqRunConfig
from glm_jax.sweeps.config import SweepConfig
from glm_jax.train.config import RunConfig
from glm_jax.train.run_folder import (
    PATH_SETTINGS,
    RUN_FOLDER_SETTINGS,
    folder_of_run,
    moved_settings,
)
from glm_jax.typed_values import build_known, build_section, unknown_name

# What a configuration may describe, by the command that runs it.
Root = TypeVar("Root", bound=Any)
ROOTS = (
    *(RunConfig, FinetuneRunConfig, LanguageModelRunConfig, Seq2SeqRunConfig),
    *(DecodeConfig, ChatGLMDecodeConfig),
)
SECTIONS: dict[str, type] = {"sweep": SweepConfig}
SECTIONS |= {name: cls for root in ROOTS for name, cls in typing.get_type_hints(root).items()}
# Holds configs/: a link to the checkout's folder, a copy of it in an installed package.
PACKAGE = Path(__file__).parent
# What gin raises over a file that it can't make sense of.
_GIN_ERRORS = (
    AttributeError,
    ImportError,
    MemoryError,  # parentheses nested too deeply for Python's parser
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    tokenize.TokenError,
)


def read_configuration(
    gin_files: Sequence[str | os.PathLike[str]],
    bindings: Sequence[str] = (),
    root: type[Root] = RunConfig,
) -> Root:
    """The configuration that gin files and bindings describe; later ones win.

    Args:
      gin_files: paths or URLs. A relative path is looked up in the working folder, then in the
        package; an included one first in the folder of the file that includes it. The config.gin
        of a run folder means that folder, whatever `train.run_folder` it was written with.
      bindings: such as "optimizer.learning_rate=3e-4"; a string value may come without quotes.
      root: what they describe.

    Raises:
      UsageError: a missing file, an unknown or missing name, a wrong type, an impossible value or
        an impossible combination.
    """
    return build_known(root, _read_bound_values(gin_files, bindings))


def read_any_configuration(
    gin_files: Sequence[str | os.PathLike[str]], bindings: Sequence[str] = ()
) -> RunConfig | FinetuneRunConfig | Seq2SeqRunConfig:
    """`read_finetuning`, if the section `finetune` is set, or `read_configuration`."""
    bound = _read_bound_values(gin_files, bindings)
    return _finetuning(bound) if bound["finetune"] else build_known(RunConfig, bound)


def read_finetuning(
    gin_files: Sequence[str | os.PathLike[str]], bindings: Sequence[str] = ()
) -> FinetuneRunConfig | Seq2SeqRunConfig:
    """`read_configuration` of a task; of one that writes texts, if `seq2seq` is set."""
    return _finetuning(_read_bound_values(gin_files, bindings))


def _finetuning(bound: Mapping[str, Mapping[str, Any]]) -> FinetuneRunConfig | Seq2SeqRunConfig:
    return build_known(Seq2SeqRunConfig if bound["seq2seq"] else FinetuneRunConfig, bound)


def read_decoding(
    gin_file: str | os.PathLike[str], bindings: Sequence[str] = ()
) -> DecodeConfig | ChatGLMDecodeConfig:
    """The network of a file of configs/models/ or configs/chatglm/, and the sizes of decoding."""
    bound = _read_bound_values([gin_file], bindings)
    return build_known(ChatGLMDecodeConfig if bound["chatglm"] else DecodeConfig, bound)


def read_sweep(
    gin_files: Sequence[str | os.PathLike[str]], bindings: Sequence[str] = ()
) -> tuple[SweepConfig, dict[str, dict[str, Any]]]:
    """The sweep that gin files describe, and what they set in every other section.

    Arguments as in `read_configuration`. The other sections' values are not checked.

    Raises:
      UsageError: as `read_configuration`, for the section `sweep`.
    """
    bound = _read_bound_values(gin_files, bindings)
    values = bound.pop("sweep")
    if not values:
        raise UsageError(
            f"{os.fspath(gin_files[-1])} sets nothing of the section sweep; expected a sweep's file"
        )
    return build_section("sweep", SweepConfig, values), bound


def _read_bound_values(
    gin_files: Sequence[str | os.PathLike[str]], bindings: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """What gin files and bindings set, by section and name; empty sections included.

    Raises:
      UsageError: a missing file, or one that gin can't make sense of.
    """
    gin.clear_config(clear_constants=True)
    try:
        for path in gin_files:
            found = _find(path)
            if found is None:
                raise UsageError(f"the gin file {path} does not exist")
            _parse_file(found)
        gin.parse_config([_checked_binding(binding) for binding in bindings])
        gin.finalize()
        return {name: read() for name, read in _READERS.items()}
    except _GIN_ERRORS as error:
        raise UsageError(explain(error, SECTIONS)) from error
    finally:
        gin.clear_config(clear_constants=True)


def _find(path: str | os.PathLike[str], beside: epath.Path | None = None) -> epath.Path | None:
    """The file that a path names: beside another file, in the working folder, in the package."""
    given = os.fspath(path)
    if not given.strip() or is_url(given) or given.startswith("~"):
        folders = [""]  # which resolve_path knows, or refuses
    else:
        folders = ["", os.fspath(PACKAGE)]
        if beside is not None:
            folders.insert(0, os.fspath(beside.parent))
    name = "--gin_file" if beside is None else f"the include of {beside}"
    for folder in folders:
        path = os.path.join(folder, given)
        resolved = resolve_path(path, name)
        if resolved.is_file():
            # As it was given, where that is a path: so are the names of what lies beside it.
            return resolved if given.startswith("~") or is_url(given) else epath.Path(path)
    return None


def _parse_file(path: epath.Path, including: tuple[epath.Path, ...] = ()) -> None:
    """Parses a gin file and everything that it includes, in order.

    gin sees the text between the includes only: its own search for included files ignores the
    folder of the including file, and treats a folder on Python's path as a package.

    Args:
      including: the files whose includes led here.

    Raises:
      UsageError: the file can't be read, includes itself, or includes a file that does not exist.
    """
    chain = (*including, path)
    lines = _read_lines(path)
    parsed = 0
    for number, line in enumerate(lines, start=1):
        if not re.match(r"include\b", line):
            continue
        match = re.fullmatch(r"include\s+(['\"])(.+)\1\s*(#.*)?", line)
        if match is None:
            raise UsageError(f"{path}, line {number}, is {line!r}; expected include 'FILE'")
        found = _find(match[2], beside=path)
        if found is None:
            raise UsageError(f"{path}, line {number}, includes {match[2]}, which does not exist")
        if any(os.path.realpath(found) == os.path.realpath(file) for file in chain):
            raise UsageError(f"{path}, line {number}, includes {match[2]}, which includes itself")
        _parse_lines(path, lines, parsed, number - 1)
        _parse_file(found, chain)
        parsed = number
    _parse_lines(path, lines, parsed, len(lines))
    if folder := folder_of_run(path):
        recorded = {name: _parameter(name) for name in (*RUN_FOLDER_SETTINGS, *PATH_SETTINGS)}
        for name, value in moved_settings(folder, recorded).items():
            gin.parse_config(f"{name} = {value!r}")


def _parameter(name: str) -> Any:
    """What the files read so far set a name to; None where they don't."""
    try:
        return gin.query_parameter(name)
    except ValueError:
        return None


def _parse_lines(path: epath.Path, lines: list[str], start: int, stop: int) -> None:
    """Gives some lines of a file to gin, under the file's name and their own numbers."""
    text = io.StringIO("\n" * start + "\n".join(lines[start:stop]) + "\n")
    text.name = str(path)  # pyright: ignore[reportAttributeAccessIssue]
    gin.parse_config(text)


def _read_lines(path: epath.Path) -> list[str]:
    """The lines of a UTF-8 file, with or without a byte order mark.

    Raises:
      UsageError: it is not UTF-8 text, or can't be read.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise UsageError(f"the gin file {path} can't be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"the gin file {path} is not UTF-8 text") from error
    if "\0" in text:
        raise UsageError(f"the gin file {path} is not text: it contains NUL characters")
    # Not splitlines: a value may contain U+2028 and other characters that Python counts as ends.
    return text.replace("\r\n", "\n").split("\n")


@gin.config.register_finalize_hook
def _refuse_scopes(config: Mapping[tuple[str, str], Any]) -> None:
    """gin's scopes choose between several calls of a function; a section is read once.

    Raises:
      UsageError: a value is bound under a scope, where nothing would read it.
    """
    for (scope, selector), values in config.items():
        section = selector.rpartition(".")[2]
        if scope and section in SECTIONS:
            name = next(iter(values), "")
            raise UsageError(
                f"{scope}/{section}.{name} has the scope {scope!r}, which nothing reads; "
                f"expected {section}.{name}"
            )


def _values_reader(cls: type):
    """A function with the parameters of a dataclass that returns those that gin supplies."""

    def read(**values):
        return values

    read.__signature__ = inspect.signature(cls)
    return read


_READERS: dict[str, Any] = {
    name: gin.external_configurable(_values_reader(cls), name, module="glm_jax")
    for name, cls in SECTIONS.items()
}


def _checked_binding(binding: str) -> str:
    """A binding as gin takes it: with quotes around a value that is no literal and no reference.

    Raises:
      UsageError: it has no value, or names neither a section's value nor a macro of the files.
    """
    name, separator, value = (part.strip() for part in binding.partition("="))
    if not (name and separator):
        raise UsageError(f"the binding {binding!r} has no value; expected SECTION.NAME=VALUE")
    if "." not in name and not _is_macro(name):
        raise UsageError(f"the binding {binding!r} names no section; expected SECTION.NAME=VALUE")
    section = name.rpartition("/")[2].rpartition(".")[0]
    if section and section.rpartition(".")[2] not in SECTIONS:
        raise UsageError(unknown_name("section", section, list(SECTIONS)))
    try:
        ast.literal_eval(value)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        if not value.startswith(("%", "@")):
            value = repr(value)
    return f"{name} = {value}"


def _is_macro(name: str) -> bool:
    """Whether the files read so far define the macro."""
    return _parameter(f"{name}/gin.macro.value") is not None
