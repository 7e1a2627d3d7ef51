"""Whole sets of parameters between the original's names and our tree."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from glm_jax.convert.array_layouts import to_native, to_original
from glm_jax.convert.layouts.original import OriginalSource
from glm_jax.convert.names import by_native, find, original_order


def read_state(checkpoint: Path) -> dict[str, np.ndarray]:
    """Arrays by their original names from an original checkpoint folder, as float32."""
    with OriginalSource(checkpoint) as source:
        return {name: source.read(name).astype(np.float32) for name in source.tensors}


def to_params(state: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Our parameter tree, in float32, from arrays by their original names; layers are stacked."""
    stacks: dict[str, list[np.ndarray]] = {}
    layers: dict[str, list[int | None]] = {}
    for name, tensor in state.items():
        found = find(name)
        assert found is not None, f"{name} is no parameter of GLM"
        entry, layer = found
        stacks.setdefault(entry.native, []).append(to_native(entry.layout, tensor))
        layers.setdefault(entry.native, []).append(layer)
    params: dict[str, Any] = {}
    for native, arrays in stacks.items():
        numbers = layers[native]
        assert numbers in ([None], list(range(len(arrays)))), f"{native} has layers {numbers}"
        *folders, leaf = native.split("/")
        place = params
        for folder in folders:
            place = place.setdefault(folder, {})
        array = arrays[0] if numbers == [None] else np.stack(arrays)
        place[leaf] = np.ascontiguousarray(array, np.float32)
    return params


def to_state(params: Mapping[str, Any], num_layers: int) -> dict[str, np.ndarray]:
    """Arrays by their original names, in its order, from our parameter tree."""
    leaves = dict(_leaves(params))
    state = {}
    for name in original_order(leaves, num_layers):
        found = find(name)
        assert found is not None
        entry, layer = found
        array = leaves[entry.native]
        state[name] = to_original(entry.layout, array if layer is None else array[layer])
    return state


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, np.ndarray]]:
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{name}/")
        else:
            assert by_native(f"{prefix}{name}") is not None, f"{prefix}{name} has no original name"
            yield f"{prefix}{name}", np.asarray(value)
