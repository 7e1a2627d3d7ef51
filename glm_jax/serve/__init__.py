"""Filling and scoring over HTTP; several requests share the rows of one engine.

The public names are imported on first use, so that importing the package is fast.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from glm_jax.serve.app import make_app
    from glm_jax.serve.settings import ServeSettings
    from glm_jax.serve.worker import Worker

__all__ = ["ServeSettings", "Worker", "make_app"]

_PUBLIC = {
    "make_app": "glm_jax.serve.app",
    "ServeSettings": "glm_jax.serve.settings",
    "Worker": "glm_jax.serve.worker",
}


def __getattr__(name: str):
    if name not in _PUBLIC:
        raise AttributeError(f"module 'glm_jax.serve' has no attribute {name!r}")
    return getattr(importlib.import_module(_PUBLIC[name]), name)
