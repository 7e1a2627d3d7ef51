"""Text -> documents: files, archives, tables and data sets.

The public names are imported on first use, so that importing the package is fast.
"""

from typing import TYPE_CHECKING

from glm_jax.lazy_exports import lazy_exports

if TYPE_CHECKING:
    from glm_jax.data.sources.corpus import documents
    from glm_jax.data.sources.document import Document, ReadOptions, ReadStats

__all__ = [
    "Document",
    "ReadOptions",
    "ReadStats",
    "documents",
]

__getattr__ = lazy_exports(
    __name__,
    {
        "Document": "document",
        "ReadOptions": "document",
        "ReadStats": "document",
        "documents": "corpus",
    },
)
