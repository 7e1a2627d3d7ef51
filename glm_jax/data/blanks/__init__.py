"""Which spans become blanks, and the examples that are made of them.

The public names are imported on first use, so that importing the package is fast.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from glm_jax.data.blanks.build import build_blanks
    from glm_jax.data.blanks.config import BlankConfig, Objective

__all__ = [
    "BlankConfig",
    "Objective",
    "build_blanks",
]

_PUBLIC = {
    "BlankConfig": "config",
    "Objective": "config",
    "build_blanks": "build",
}


def __getattr__(name: str):
    if name not in _PUBLIC:
        raise AttributeError(f"module 'glm_jax.data.blanks' has no attribute {name!r}")
    return getattr(importlib.import_module(f"glm_jax.data.blanks.{_PUBLIC[name]}"), name)
