"""Public names of a package that are imported on first use, so that importing it is fast."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any


def lazy_exports(package: str, modules: Mapping[str, str]) -> Callable[[str], Any]:
    """The `__getattr__` of a package (PEP 562) that imports its public names on first use.

    The package imports the same names under `if TYPE_CHECKING`, for type checkers and editors.

    Args:
      package: the package's `__name__`.
      modules: the module of each public name, relative to the package.
    """

    def load(name: str) -> Any:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(importlib.import_module(f"{package}.{modules[name]}"), name)

    return load
