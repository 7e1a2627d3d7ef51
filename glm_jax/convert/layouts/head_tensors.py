"""The head of a classifier among the tensors of a checkpoint; GLM itself has none."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from etils import epath

from glm_jax.convert.base_weights import TASK_PARAMETERS
from glm_jax.convert.layouts.native_reader import open_arrays, reason_of
from glm_jax.convert.layouts.state_dict import bare_name
from glm_jax.convert.tensors import require_finite
from glm_jax.errors import UsageError

HEAD, PROMPTS = TASK_PARAMETERS
# The two layers of our head and what they are called elsewhere, the preferred name first: by the
# published `GLMForSequenceClassification`, by the original code, and by others.
_LAYERS = {
    "pool_layer": ("dense", "pool_layer", "classifier.dense", "pooler.dense"),
    "multichoice_head": ("out_proj", "multichoice_head", "classifier.out_proj", "classifier"),
}
_PARAMETERS = {"kernel": "weight", "bias": "bias"}


def find_head(stored: Iterable[str]) -> dict[str, str]:
    """The tensors that are a head's, by their paths in our tree.

    Of several layers that could be the same one, the first of its names is taken, so that weight
    and bias are of one layer.

    Args:
      stored: the names of tensors that GLM doesn't have.

    Returns:
      The stored name by the path, such as "classification_head/pool_layer/kernel".
    """
    by_name = {bare_name(name): name for name in stored}
    found: dict[str, str] = {}
    for layer, names in _LAYERS.items():
        name = next((name for name in names if f"{name}.weight" in by_name), None)
        for ours, theirs in _PARAMETERS.items():
            if name is not None and f"{name}.{theirs}" in by_name:
                found[f"{HEAD}/{layer}/{ours}"] = by_name[f"{name}.{theirs}"]
    return found


def read_native_head(step_folder: epath.Path, dtype: np.dtype) -> dict[str, np.ndarray]:
    """The head that a finetuning run has trained, under its published names.

    Args:
      step_folder: of the run's checkpoint.
      dtype: that the tensors get.

    Returns:
      The tensors with torch's axes; nothing where the run has no head.

    Raises:
      UsageError: one is damaged, or has a number that the dtype can't hold.
    """
    arrays = open_arrays(step_folder)
    found = {}
    for layer, names in _LAYERS.items():
        for ours, theirs in _PARAMETERS.items():
            stored = arrays.get(f"{HEAD}/{layer}/{ours}")
            if stored is None:
                continue
            try:
                values = stored.array.read().result()
            except (ValueError, OSError) as error:
                raise UsageError(f"{stored.where} is damaged: {reason_of(error)}") from error
            with np.errstate(over="ignore"):
                tensor = np.ascontiguousarray(values.T.astype(dtype))
            require_finite(tensor, f"{layer}/{ours}", stored.where)
            found[f"{names[0]}.{theirs}"] = tensor
    return found


def has_native_prompts(step_folder: epath.Path) -> bool:
    """Whether a run has trained continuous prompts, which only glm_jax reads."""
    return any(path.startswith(f"{PROMPTS}/") for path in open_arrays(step_folder))
