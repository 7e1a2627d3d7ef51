"""The token store: one long array of token ids on disk, and its documents.

The public names are imported on first use, so that importing the package is fast.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from glm_jax.data.store.store import StoreMetadata, TokenStore, open_store

__all__ = [
    "StoreMetadata",
    "TokenStore",
    "open_store",
]

_PUBLIC = {
    "StoreMetadata": "store",
    "TokenStore": "store",
    "open_store": "store",
}


def __getattr__(name: str):
    if name not in _PUBLIC:
        raise AttributeError(f"module 'glm_jax.data.store' has no attribute {name!r}")
    return getattr(importlib.import_module(f"glm_jax.data.store.{_PUBLIC[name]}"), name)
