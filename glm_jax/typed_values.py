"""Values of a configuration -> a dataclass whose fields have the types that it declares."""

from __future__ import annotations

import dataclasses
import difflib
import typing
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from glm_jax.errors import UsageError

MAX_SHOWN = 80  # characters of a wrong value in a message
Root = TypeVar("Root")


def build_configuration(root: type[Root], bound: Mapping[str, Mapping[str, Any]]) -> Root:
    """A dataclass of sections from the values that were bound, by section and name.

    Sections that the dataclass does not have are ignored.

    Raises:
      UsageError: a value of the wrong type, a missing one, or values that don't fit together.
    """
    sections = typing.get_type_hints(root)
    return root(
        **{name: build_section(name, cls, dict(bound[name])) for name, cls in sections.items()}
    )


def build_known(root: type[Root], bound: Mapping[str, Mapping[str, Any]]) -> Root:
    """`build_configuration` of values that all belong to its sections.

    Raises:
      UsageError: as `build_configuration`, or a value of another section is bound.
    """
    sections = typing.get_type_hints(root)
    for name, values in bound.items():
        if values and name not in sections:
            raise UsageError(
                f"{name}.{next(iter(values))} is set, but this command has the sections "
                f"{', '.join(sections)}"
            )
    return build_configuration(root, bound)


def build_section(section: str, cls: type, values: dict[str, Any]) -> Any:
    """A section's dataclass from the values that were bound.

    Raises:
      UsageError: a value of the wrong type, or a missing one.
    """
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
        try:
            return float(value)
        except OverflowError as error:
            raise UsageError(f"{name} is an integer too large for type float") from error
    if typing.get_origin(expected) is Mapping:
        return _of_mapping_type(name, value, expected)
    if typing.get_origin(expected) is tuple:
        items = _of_type(name, value, tuple)
        return tuple(_of_type(f"an item of {name}", i, typing.get_args(expected)[0]) for i in items)
    if type(value) is not expected:
        shown = repr(value)
        if len(shown) > MAX_SHOWN:
            shown = f"{shown[:MAX_SHOWN]}..."
        raise UsageError(
            f"{name} is {shown}, of type {type(value).__name__}; expected type {expected.__name__}"
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


def unknown_name(kind: str, name: str, known: Sequence[str], where: str = "") -> str:
    """A sentence for a name that is not among the known ones, with the closest of these.

    Args:
      kind: what it names.
      name: as it was given.
      known: what there is.
      where: added after the name.
    """
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"expected one of {', '.join(known)}"
    return f"unknown {kind} {name!r}{where}; {hint}"
