"""Range checks for the fields of configurations: one sentence that names the field and its value.

Every check takes the section of the configuration ("model"), the dataclass, and the names of its
fields, and raises a `UsageError` such as "model.num_layers is 0; expected at least 1".
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from glm_jax.errors import UsageError

# JAX, NumPy and TensorFlow count in 64 bits with a sign.
MIN_INTEGER, MAX_INTEGER = -(2**63), 2**63 - 1


def at_least(section: str, config: Any, minimum: int, *names: str) -> None:
    """Integers that are `minimum` or more, and fit into 64 bits."""
    for name in names:
        value = getattr(config, name)
        if not _is_integer(value) or value < minimum:
            _refuse(section, name, value, f"an integer of at least {minimum}")
        if value > MAX_INTEGER:
            _refuse(section, name, value, "an integer below 2^63")


def seed(section: str, config: Any, *names: str) -> None:
    """Integers of 64 bits, with their sign."""
    for name in names:
        value = getattr(config, name)
        if not _is_integer(value) or not MIN_INTEGER <= value <= MAX_INTEGER:
            _refuse(section, name, value, "an integer from -2^63 to 2^63 - 1")


def positive(section: str, config: Any, *names: str) -> None:
    """Finite numbers above 0."""
    for name in names:
        value = getattr(config, name)
        if not _is_number(value) or not 0 < value < math.inf:
            _refuse(section, name, value, "a positive number")


def non_negative(section: str, config: Any, *names: str) -> None:
    """Finite numbers of 0 or more."""
    for name in names:
        value = getattr(config, name)
        if not _is_number(value) or not 0 <= value < math.inf:
            _refuse(section, name, value, "0 or a positive number")


def fraction(section: str, config: Any, *names: str, zero: bool = True, one: bool = True) -> None:
    """Numbers between 0 and 1; `zero` and `one` say whether the ends themselves are allowed."""
    interval = f"{'[' if zero else '('}0, 1{']' if one else ')'}"
    for name in names:
        value = getattr(config, name)
        inside = _is_number(value) and 0 <= value <= 1
        if not inside or (value == 0 and not zero) or (value == 1 and not one):
            _refuse(section, name, value, f"a number in {interval}")


def choice(section: str, config: Any, name: str, choices: Iterable[str]) -> None:
    """One of several names."""
    value, choices = getattr(config, name), tuple(choices)
    if value not in choices:
        _refuse(section, name, value, f"one of {', '.join(choices)}")


def boolean(section: str, config: Any, *names: str) -> None:
    """True or False, and no other value."""
    for name in names:
        if not isinstance(getattr(config, name), bool):
            _refuse(section, name, getattr(config, name), "True or False")


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _refuse(section: str, name: str, value: object, expected: str) -> None:
    try:
        shown = repr(value)
    except ValueError:  # Python doesn't write integers of more than 4300 digits
        shown = "a very large number"
    raise UsageError(f"{section}.{name} is {shown}; expected {expected}")
