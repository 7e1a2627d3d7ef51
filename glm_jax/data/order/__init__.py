"""Step -> texts: the order in which a store is read.

The public names are imported on first use, so that importing the package is fast.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from glm_jax.data.order.documents import DocumentTexts
    from glm_jax.data.order.epochs import EpochOrder, EpochTexts
    from glm_jax.data.order.mixture import MixedTexts

__all__ = [
    "DocumentTexts",
    "EpochOrder",
    "EpochTexts",
    "MixedTexts",
]

_PUBLIC = {
    "DocumentTexts": "documents",
    "EpochOrder": "epochs",
    "EpochTexts": "epochs",
    "MixedTexts": "mixture",
}


def __getattr__(name: str):
    if name not in _PUBLIC:
        raise AttributeError(f"module 'glm_jax.data.order' has no attribute {name!r}")
    return getattr(importlib.import_module(f"glm_jax.data.order.{_PUBLIC[name]}"), name)
