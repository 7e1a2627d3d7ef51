"""The head of a classifier that came with the weights, where a run can start from it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from jaxtyping import PyTree

from glm_jax.convert.layouts.head_tensors import HEAD
from glm_jax.finetune.trainable import from_paths, leaf_paths


def initial_head(
    head: Mapping[str, np.ndarray], params: PyTree, checkpoint: str
) -> tuple[PyTree, tuple[str, ...]]:
    """The parameters of a run's head that are in a checkpoint with the shapes that it needs.

    A layer is taken as it is or not at all: with another number of labels, the first layer of the
    head is still that of the checkpoint.

    Args:
      head: of the checkpoint, by paths.
      params: shapes of the run's parameters.
      checkpoint: for the notes.

    Returns:
      The parameters, and lines on which of the checkpoint's are used.
    """
    if not head:
        return {}, ()
    needed = {path: leaf.shape for path, leaf in leaf_paths(params) if path.startswith(f"{HEAD}/")}
    layers = sorted({path.rpartition("/")[0] for path in needed or head}, reverse=True)
    taken: dict[str, np.ndarray] = {}
    notes = []
    for layer in layers:
        own = {path: shape for path, shape in needed.items() if path.startswith(f"{layer}/")}
        found = {path: head[path] for path in head if path.startswith(f"{layer}/")}
        name = layer.removeprefix(f"{HEAD}/")
        if not own:
            notes.append(f"{checkpoint} has a head's {name}, which this run has no use for")
        elif {path: tensor.shape for path, tensor in found.items()} == own:
            taken |= found
            notes.append(f"the head's {name} is that of {checkpoint}")
        else:
            has = _kernel_shape({path: tensor.shape for path, tensor in found.items()}, layer)
            notes.append(
                f"the head's {name} is new: {checkpoint} has {has}, the task needs "
                f"{_kernel_shape(own, layer)}"
            )
    return from_paths(taken.items()), tuple(notes)


def _kernel_shape(shapes: Mapping[str, tuple[int, ...]], layer: str) -> str:
    """A layer's size in words."""
    shape = shapes.get(f"{layer}/kernel")
    if shape is None or f"{layer}/bias" not in shapes:
        return "none"
    return " x ".join(map(str, shape))
