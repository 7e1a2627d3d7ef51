"""Step -> texts: the order in which a store is read.

The public names are imported on first use, so that importing the package is fast.
"""

from typing import TYPE_CHECKING

from glm_jax.lazy_exports import lazy_exports

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

__getattr__ = lazy_exports(
    __name__,
    {
        "DocumentTexts": "documents",
        "EpochOrder": "epochs",
        "EpochTexts": "epochs",
        "MixedTexts": "mixture",
    },
)
