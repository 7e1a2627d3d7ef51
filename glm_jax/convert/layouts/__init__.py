"""Checkpoints of each kind as sources and destinations: the original's, Hugging Face's and ours.

The public names are imported on first use, so that importing the package is fast.
"""

from typing import TYPE_CHECKING

from glm_jax.lazy_exports import lazy_exports

if TYPE_CHECKING:
    from glm_jax.convert.layouts.huggingface import HuggingFaceSource
    from glm_jax.convert.layouts.huggingface_writer import HuggingFaceDestination
    from glm_jax.convert.layouts.native import NativeSource
    from glm_jax.convert.layouts.native_writer import NativeDestination
    from glm_jax.convert.layouts.original import OriginalSource
    from glm_jax.convert.layouts.original_writer import OriginalDestination

__all__ = [
    "HuggingFaceDestination",
    "HuggingFaceSource",
    "NativeDestination",
    "NativeSource",
    "OriginalDestination",
    "OriginalSource",
]

__getattr__ = lazy_exports(
    __name__,
    {
        "HuggingFaceSource": "huggingface",
        "HuggingFaceDestination": "huggingface_writer",
        "NativeSource": "native",
        "NativeDestination": "native_writer",
        "OriginalSource": "original",
        "OriginalDestination": "original_writer",
    },
)
