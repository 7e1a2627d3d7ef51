"""Weights between the original's checkpoints, Hugging Face folders and ours.

The public names are loaded when they are first used.
"""

from typing import TYPE_CHECKING

from glm_jax.lazy_exports import lazy_exports

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

__getattr__ = lazy_exports(
    __name__,
    {
        "Changes": "changes",
        "load_glm": "load",
        "open_source": "open",
        "SourceMetadata": "weights",
        "TensorInfo": "weights",
        "WeightDestination": "weights",
        "WeightSource": "weights",
    },
)
