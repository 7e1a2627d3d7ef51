"""What checks the package's annotations while the tests run; see `conftest.py`."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from beartype import BeartypeConf, beartype

# The modules whose arrays have annotated shapes. The others' functions take few arrays, and every
# checked module costs time at its import.
CHECKED_MODULES = (
    "glm_jax.data.batches",
    "glm_jax.data.blanks",
    "glm_jax.data.order",
    "glm_jax.generate",
    "glm_jax.model",
    "glm_jax.parallel",
    "glm_jax.train",
)

# As static type checkers do, an int is taken where a float is annotated.
CONFIGURATION = BeartypeConf(is_pep484_tower=True)


def check(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function with its arguments and its result checked against its annotations.

    The check is made when the function is first called: most functions of the modules that a test
    imports never are, and making a check takes milliseconds. The fields of Flax's dataclasses are
    not checked: JAX also builds them of shardings and of abstract arrays.
    """

    @cache
    def checked() -> Callable[..., Any]:
        return beartype(conf=CONFIGURATION)(function)

    def call(*args, **kwargs):
        if function.__name__ == "__init__" and hasattr(args[0], "_flax_dataclass"):
            return None
        return checked()(*args, **kwargs)

    return call
