"""The token store: one long array of token ids on disk, and its documents.

The public names are imported on first use, so that importing the package is fast.
"""

from typing import TYPE_CHECKING

from glm_jax.lazy_exports import lazy_exports

if TYPE_CHECKING:
    from glm_jax.data.store.store import StoreMetadata, TokenStore, open_store

__all__ = [
    "StoreMetadata",
    "TokenStore",
    "open_store",
]

__getattr__ = lazy_exports(
    __name__,
    {
        "StoreMetadata": "store",
        "TokenStore": "store",
        "open_store": "store",
    },
)
