"""Readers and writers of the binary files that hold weights.

The public names are imported on first use, so that importing the package is fast.
"""

from typing import TYPE_CHECKING

from glm_jax.lazy_exports import lazy_exports

if TYPE_CHECKING:
    from glm_jax.convert.formats.safetensors import SafetensorsFile, SafetensorsWriter
    from glm_jax.convert.formats.torch_reader import TorchFile
    from glm_jax.convert.formats.torch_writer import Announced, TorchWriter

__all__ = [
    "Announced",
    "SafetensorsFile",
    "SafetensorsWriter",
    "TorchFile",
    "TorchWriter",
]

__getattr__ = lazy_exports(
    __name__,
    {
        "SafetensorsFile": "safetensors",
        "SafetensorsWriter": "safetensors",
        "TorchFile": "torch_reader",
        "Announced": "torch_writer",
        "TorchWriter": "torch_writer",
    },
)
