"""What checks the shapes in the package's annotations while the tests run; see `conftest.py`."""

from __future__ import annotations

import re
import types
import typing
from collections.abc import Callable
from functools import cache, wraps
from typing import Any

import jaxtyping
from beartype import BeartypeConf, beartype

# The modules that compute with JAX. Those of `glm_jax.data` trace TensorFlow graphs, whose shapes
# are partly unknown.
CHECKED_MODULES = ("glm_jax.generate", "glm_jax.model", "glm_jax.parallel", "glm_jax.train")

# As static type checkers do, an int is taken where a float is annotated.
CONFIGURATION = BeartypeConf(is_pep484_tower=True)


def check(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function with the dtypes and shapes of its arrays checked against its annotations.

    An array of numpy may stand for one of JAX. Annotations without a shape are left to pyright, and
    so are axes that are computed from others. The check is made when the function is first called:
    most functions of the modules that a test imports never are.
    """
    if function.__name__ == "__init__":  # JAX also builds pytrees of shardings and of nothing
        return function
    try:
        hints = typing.get_type_hints(function)
    except NameError:  # a name that is imported for type checkers only
        return function
    annotations = {name: _shape_of(hint) for name, hint in hints.items()}
    if all(annotation is Any for annotation in annotations.values()):
        return function
    function.__annotations__ = annotations

    @cache
    def checked() -> Callable[..., Any]:
        return beartype(conf=CONFIGURATION)(function)

    @wraps(function)
    def call(*args, **kwargs):
        return checked()(*args, **kwargs)

    return call


def _shape_of(hint: Any) -> Any:
    """The annotation for arrays of any kind; `Any` where it has no shape that can be checked."""
    if hasattr(hint, "dim_str"):
        if re.search(r"[-+/]", hint.dim_str) or hint.__name__.startswith("Key"):
            return Any
        return getattr(jaxtyping, hint.__name__.partition("[")[0])[Any, hint.dim_str]
    options = typing.get_args(hint) if isinstance(hint, types.UnionType) else ()
    if options and all(hasattr(option, "dim_str") or option is type(None) for option in options):
        shapes = tuple(None if option is type(None) else _shape_of(option) for option in options)
        return Any if Any in shapes else typing.Union[shapes]  # noqa: UP007
    return Any
