"""Documents -> token store.

The public names are imported on first use, so that importing the package is fast.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from glm_jax.data.prepare.report import PrepareReport
    from glm_jax.data.prepare.run import prepare
    from glm_jax.data.prepare.runner import LocalRunner

__all__ = [
    "LocalRunner",
    "PrepareReport",
    "prepare",
]

_PUBLIC = {
    "LocalRunner": "runner",
    "PrepareReport": "report",
    "prepare": "run",
}


def __getattr__(name: str):
    if name not in _PUBLIC:
        raise AttributeError(f"module 'glm_jax.data.prepare' has no attribute {name!r}")
    return getattr(importlib.import_module(f"glm_jax.data.prepare.{_PUBLIC[name]}"), name)
