"""Whether two checkpoints hold the same weights: what a difference of outputs comes from."""

from __future__ import annotations

import zlib
from collections.abc import Mapping

import numpy as np

from glm_jax.convert.names import find
from glm_jax.convert.weights import WeightSource

SHOWN = 3


def check_sums(source: WeightSource) -> dict[str, int]:
    """A check sum of every tensor's values in float32, so that the stored dtype plays no part."""
    return {
        name: zlib.crc32(np.ascontiguousarray(source.read(name), np.float32).data)
        for name in source.tensors
    }


def explain(first: Mapping[str, int], second: Mapping[str, int]) -> str:
    """What is different about the weights, from the check sums of two checkpoints."""
    differing = [name for name in first if first[name] != second[name]]
    if not differing:
        return "all weights are the same, so it is the two engines that compute differently"
    moved = _moved_layers(first, second)
    if moved:
        pairs = ", ".join(f"layer {here} of B is layer {there} of A" for here, there in moved)
        return f"layers are permuted: {pairs}"
    shown = ", ".join(differing[:SHOWN])
    more = "" if len(differing) <= SHOWN else f" and {len(differing) - SHOWN} more"
    return f"{len(differing)} of {len(first)} tensors have other values: {shown}{more}"


def _moved_layers(first: Mapping[str, int], second: Mapping[str, int]) -> list[tuple[int, int]]:
    """(layer of the second, layer of the first) for layers that are equal to another layer."""
    layers, others = _layers(first), _layers(second)
    return [
        (here, layers.index(weights))
        for here, weights in enumerate(others)
        if weights != layers[here] and weights in layers
    ]


def _layers(sums: Mapping[str, int]) -> list[tuple[int, ...]]:
    """The check sums of each layer's tensors."""
    layers: dict[int, list[int]] = {}
    for name, value in sums.items():
        found = find(name)
        if found is not None and found[1] is not None:
            layers.setdefault(found[1], []).append(value)
    return [tuple(layers[layer]) for layer in sorted(layers)]
