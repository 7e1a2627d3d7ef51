"""Texts and blanks -> batches, on tf.data.

The public names are imported on first use, so that importing the package is fast.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from glm_jax.data.batches.batch import make_batch
    from glm_jax.data.batches.inputs import Inputs, open_inputs
    from glm_jax.data.batches.rows import RowMaker
    from glm_jax.data.batches.supervised import read_supervised

__all__ = [
    "Inputs",
    "RowMaker",
    "make_batch",
    "open_inputs",
    "read_supervised",
]

_PUBLIC = {
    "Inputs": "inputs",
    "RowMaker": "rows",
    "make_batch": "batch",
    "open_inputs": "inputs",
    "read_supervised": "supervised",
}


def __getattr__(name: str):
    if name not in _PUBLIC:
        raise AttributeError(f"module 'glm_jax.data.batches' has no attribute {name!r}")
    return getattr(importlib.import_module(f"glm_jax.data.batches.{_PUBLIC[name]}"), name)
