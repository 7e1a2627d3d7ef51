"""Texts and blanks -> batches, on tf.data.

The public names are imported on first use, so that importing the package is fast.
"""

from typing import TYPE_CHECKING

from glm_jax.lazy_exports import lazy_exports

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

__getattr__ = lazy_exports(
    __name__,
    {
        "Inputs": "inputs",
        "RowMaker": "rows",
        "make_batch": "batch",
        "open_inputs": "inputs",
        "read_supervised": "supervised",
    },
)
