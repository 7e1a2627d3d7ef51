"""A user's own function that says which documents are kept."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from types import ModuleType

from glm_jax.data.sources.document import Document
from glm_jax.errors import UsageError
from glm_jax.io.paths import local_path, resolve_path

Filter = Callable[[Document], bool]


@lru_cache(maxsize=1)
def load_filter(name: str) -> Filter:
    """The function that ``MODULE:FUNCTION`` or ``FILE.py:FUNCTION`` names.

    Raises:
      UsageError: there is no such module, file or function.
    """
    module_name, _, function_name = name.rpartition(":")
    function = getattr(_module(module_name, name), function_name, None)
    if not callable(function):
        raise UsageError(f"filter {name!r}: {module_name} has no function {function_name!r}")

    def keeps(document: Document) -> bool:
        try:
            return bool(function(document))
        except Exception as error:
            raise UsageError(
                f"filter {name!r} failed at {document.origin}: {type(error).__name__}: {error}"
            ) from error

    return keeps


def filter_stamp(name: str) -> str:
    """What changes when the filter's file does."""
    load_filter(name)
    source = getattr(_module(name.rpartition(":")[0], name), "__file__", None)
    content = Path(source).read_bytes() if source else b""
    return f"{name} {hashlib.sha256(content).hexdigest()}"


def _module(module_name: str, name: str) -> ModuleType:
    if not module_name:
        raise UsageError(f"filter is {name!r}, expected MODULE:FUNCTION or FILE.py:FUNCTION")
    try:
        if not module_name.rstrip("/").endswith(".py"):
            return importlib.import_module(module_name)
        file = local_path(resolve_path(module_name, "filter"), "filter")
        spec = importlib.util.spec_from_file_location(file.stem, file)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules.setdefault(spec.name, module)  # where dataclasses, for one, look
        spec.loader.exec_module(module)
        return module
    except Exception as error:  # whatever the user's module raises
        raise UsageError(
            f"filter {name!r}: {module_name} cannot be imported: {type(error).__name__}: {error}"
        ) from error
