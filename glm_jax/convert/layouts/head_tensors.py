"""The head of a classifier among the tensors of a checkpoint; GLM itself has none."""

from __future__ import annotations

from collections.abc import Iterable

from glm_jax.convert.base_weights import TASK_PARAMETERS
from glm_jax.convert.layouts.state_dict import bare_name

HEAD = TASK_PARAMETERS[0]
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
