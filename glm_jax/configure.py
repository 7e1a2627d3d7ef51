"""gin files and flags in, one plain typed configuration out. The only file that imports gin."""

from __future__ import annotations

import ast
import dataclasses
import difflib
import inspect
import re
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import gin

from glm_jax.errors import UsageError
from glm_jax.train.config import RunConfig

SECTIONS: dict[str, type] = typing.get_type_hints(RunConfig)
# Includes such as "configs/models/demo.gin" are looked up in the working folder, then here.
PROJECT_ROOT = Path(__file__).resolve().parents[1]


def read_configuration(gin_files: Sequence[str | Path], bindings: Sequence[str] = ()) -> RunConfig:
    """The configuration that gin files and bindings describe; later ones win.

    Args:
      gin_files: paths; their includes are looked up in the working folder, then in the project's.
      bindings: such as "optimizer.learning_rate=3e-4"; a string value may come without quotes.

    Raises:
      UsageError: a missing file, an unknown or missing name, a wrong type, an impossible value or
        an impossible combination.
    """
    for path in gin_files:
        if not Path(path).is_file():
            raise UsageError(f"the gin file {path} does not exist")
        _check_includes(Path(path))
    gin.clear_config(clear_constants=True)
    try:
        files = [str(path) for path in gin_files]
        gin.parse_config_files_and_bindings(files, [], finalize_config=False)
        gin.parse_config([_checked_binding(binding) for binding in bindings])
        gin.finalize()
        bound = {name: read() for name, read in _READERS.items()}
    except (ValueError, TypeError, SyntaxError, AttributeError, RuntimeError, OSError) as error:
        raise UsageError(_explain(error)) from error
    finally:
        gin.clear_config(clear_constants=True)
    return RunConfig(**{name: _build(name, values) for name, values in bound.items()})


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
gin.add_config_file_search_path(str(PROJECT_ROOT))


def _build(section: str, values: dict[str, Any]) -> Any:
    """A section's dataclass from the values that were bound.

    Raises:
      UsageError: a value of the wrong type, or a missing one.
    """
    cls = SECTIONS[section]
    types = typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        name = f"{section}.{field.name}"
        if field.name in values:
            values[field.name] = _of_type(name, values[field.name], types[field.name])
        elif field.default is field.default_factory is dataclasses.MISSING:
            raise UsageError(f"{name} is not set, and it has no default")
    return cls(**values)


def _of_type(name: str, value: Any, expected: type) -> Any:
    if expected is Any:
        return value
    if expected is float and type(value) is int:
        return float(value)
    if typing.get_origin(expected) is Mapping:
        return _of_mapping_type(name, value, expected)
    if typing.get_origin(expected) is tuple:
        items = _of_type(name, value, tuple)
        return tuple(_of_type(f"an item of {name}", i, typing.get_args(expected)[0]) for i in items)
    if type(value) is not expected:
        raise UsageError(
            f"{name} is {value!r}, of type {type(value).__name__}; "
            f"expected type {expected.__name__}"
        )
    return value


def _of_mapping_type(name: str, value: Any, expected: Any) -> dict:
    """A dict whose keys and values have the types of a `Mapping[key, value]`."""
    value = _of_type(name, value, dict)
    key_type, value_type = typing.get_args(expected)
    return {
        _of_type(f"a key of {name}", key, key_type): _of_type(f"{name}[{key!r}]", item, value_type)
        for key, item in value.items()
    }


def _check_includes(path: Path) -> None:
    """Makes sure that everything a gin file includes is there, for gin's own complaint is opaque.

    Raises:
      UsageError: an included file does not exist.
    """
    for number, line in enumerate(path.read_text(errors="replace").splitlines(), start=1):
        match = re.match(r"include\s+['\"](.+?)['\"]", line)
        if match:
            found = [p for p in (Path(match[1]), PROJECT_ROOT / match[1]) if p.is_file()]
            if not found:
                raise UsageError(
                    f"{path}, line {number}, includes {match[1]}, which does not exist"
                )
            _check_includes(found[0])


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
    try:
        ast.literal_eval(value)
    except (ValueError, SyntaxError):
        if not value.startswith(("%", "@")):
            value = repr(value)
    return f"{name} = {value}"


def _is_macro(name: str) -> bool:
    """Whether the files read so far define the macro."""
    try:
        gin.query_parameter(f"{name}/gin.macro.value")
    except ValueError:
        return False
    return True


def _explain(error: Exception) -> str:
    """gin's many-line messages as one sentence."""
    text = str(error)
    if match := re.search(r"No configurable matching '(.+?)'", text):
        return _unknown("section", match[1], list(SECTIONS)) + _place(text)
    if match := re.search(r"Configurable '(.+?)' doesn't have a parameter named '(.+?)'", text):
        section = match[1].rpartition(".")[2]
        names = [field.name for field in dataclasses.fields(SECTIONS[section])]
        return _unknown("name", match[2], names, f" in section {section}") + _place(text)
    first_line = next((line.strip() for line in text.splitlines() if line.strip()), repr(error))
    return f"the configuration can't be read: {first_line}" + _place(text)


def _unknown(kind: str, name: str, known: list[str], where: str = "") -> str:
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"expected one of {', '.join(known)}"
    return f"unknown {kind} {name!r}{where}; {hint}"


def _place(text: str) -> str:
    match = re.search(r'In file "(.+?)", line (\d+)', text)
    return f" ({match[1]}, line {match[2]})" if match else ""
