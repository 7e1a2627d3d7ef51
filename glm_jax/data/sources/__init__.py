"""Text -> documents: files, archives, tables and data sets.

The public names are imported on first use, so that importing the package is fast.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from glm_jax.data.sources.corpus import documents
    from glm_jax.data.sources.document import Document, ReadOptions, ReadStats

__all__ = [
    "Document",
    "ReadOptions",
    "ReadStats",
    "documents",
]

_PUBLIC = {
    "Document": "document",
    "ReadOptions": "document",
    "ReadStats": "document",
    "documents": "corpus",
}


def __getattr__(name: str):
    if name not in _PUBLIC:
        raise AttributeError(f"module 'glm_jax.data.sources' has no attribute {name!r}")
    return getattr(importlib.import_module(f"glm_jax.data.sources.{_PUBLIC[name]}"), name)
