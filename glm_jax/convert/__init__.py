"""Weights between the original's checkpoints, Hugging Face folders and ours.

The public names are loaded when they are first used.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from glm_jax.convert.changes import Changes
    from glm_jax.convert.load import load_glm
    from glm_jax.convert.open import open_source
    from glm_jax.convert.weights import SourceMetadata, TensorInfo, WeightDestination, WeightSource

__all__ = [
    "Changes",
    "SourceMetadata",
    "TensorInfo",
    "WeightDestination",
    "WeightSource",
    "load_glm",
    "open_source",
]

_PUBLIC = {
    "Changes": "glm_jax.convert.changes",
    "load_glm": "glm_jax.convert.load",
    "open_source": "glm_jax.convert.open",
    "SourceMetadata": "glm_jax.convert.weights",
    "TensorInfo": "glm_jax.convert.weights",
    "WeightDestination": "glm_jax.convert.weights",
    "WeightSource": "glm_jax.convert.weights",
}


def __getattr__(name: str):
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_PUBLIC[name]), name)
