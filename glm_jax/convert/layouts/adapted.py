"""A finetuning run's checkpoint that holds a part of its network, merged with its base weights."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import ExitStack

import numpy as np

from glm_jax.convert.array_layouts import to_native, to_original
from glm_jax.convert.base_weights import ADAPTER_MATRICES, BaseWeights, checksum_of
from glm_jax.convert.layouts.native import NativeCheckpoint
from glm_jax.convert.layouts.native_reader import Leaf, LeafReader, StoredArray, open_arrays
from glm_jax.convert.layouts.native_record import model_config
from glm_jax.convert.names import TABLE, by_native, find
from glm_jax.convert.tensors import contiguous, require_finite
from glm_jax.convert.weights import TensorInfo, WeightSource
from glm_jax.errors import UsageError


class AdaptedSource(NativeCheckpoint):
    """The merged network: base weights, with what was trained in their place or added to them.

    Trained tensors and those with an adapter are float32, others as the base weights have them.
    Every tensor of the base weights is checked when it is read.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        base: BaseWeights,
        source: WeightSource,
        resources: ExitStack,
    ) -> None:
        """Opens a checkpoint over its base weights.

        Args:
          path: as of `NativeSource`.
          base: the checkpoint's record of them.
          source: the opened base weights.
          resources: what is closed with this source.

        Raises:
          UsageError: the checkpoint is damaged, or does not fit the base weights.
          RunError: its record is damaged.
        """
        super().__init__(path)
        self._base, self._source, self._resources = base, source, resources
        self._reader = LeafReader()
        arrays = open_arrays(self.step_folder)
        entries = {native: by_native(native) for native in arrays}
        leaves = [Leaf(entry, *arrays[native]) for native, entry in entries.items() if entry]
        self._trained = {name: leaf for leaf in leaves for name in leaf.names()}
        self._adapters = _adapters(arrays)
        self.tensors: Mapping[str, TensorInfo] = {
            name: self._info(name, info) for name, info in source.tensors.items()
        } | {  # a prefix, which the base weights have not
            name: TensorInfo(leaf.original_shape(), np.dtype(np.float32))
            for name, leaf in self._trained.items()
            if name not in source.tensors
        }
        try:
            model_config(self.record, self.tensors, self.step_folder)
        except UsageError as error:
            raise UsageError(f"the weights at {base.path} have changed: {error}") from error
        order = {entry.native: number for number, entry in enumerate(TABLE)}
        self.reading_order = sorted(self.tensors, key=lambda name: order[_native(name)])

    def _info(self, name: str, info: TensorInfo) -> TensorInfo:
        leaf = self._trained.get(name)
        if leaf is not None and leaf.original_shape() != info.shape:
            raise UsageError(
                f"{leaf.where} has the shape {list(leaf.array.shape)}, which does not fit the "
                f"weights at {self._base.path}"
            )
        changed = leaf is not None or _native(name) in self._adapters
        return TensorInfo(info.shape, np.dtype(np.float32)) if changed else info

    def __enter__(self) -> AdaptedSource:
        return self

    def __exit__(self, *_error: object) -> None:
        self._reader.close()
        self._resources.close()

    def where(self, name: str) -> str:
        """The folder or file that holds a tensor."""
        return self._trained[name].where if name in self._trained else self._source.where(name)

    def read(self, name: str) -> np.ndarray:
        """One tensor of the merged network in the original's layout.

        Raises:
          UsageError: its bytes are damaged or missing, a number isn't finite, or the base weights
            are not those that were trained.
        """
        found = find(name)
        if found is None:
            raise KeyError(name)
        entry, layer = found
        leaf = self._trained.get(name)
        if leaf is not None:
            tensor = contiguous(to_original(entry.layout, self._reader.read(leaf, layer, name)))
            tensor = tensor.astype(np.float32, copy=False)
            require_finite(tensor, name, leaf.where)
            return tensor
        tensor = self._source.read(name)
        checksum = checksum_of(contiguous(to_native(entry.layout, tensor)))
        self._base.check(entry.native, layer or 0, checksum, str(self.step_folder))
        if entry.native not in self._adapters:
            return tensor
        first, second = (matrix[layer] for matrix in self._adapters[entry.native])
        product = np.tensordot(first, second, axes=1) * np.float32(self._base.adapter_scale)
        delta = contiguous(to_original(entry.layout, product))
        if delta.shape != tensor.shape:
            raise UsageError(
                f"the adapter of {name} in {self.step_folder} does not fit the weights at "
                f"{self._base.path}"
            )
        merged = tensor.astype(np.float32) + delta
        require_finite(merged, name, str(self.step_folder))
        return merged


def _native(name: str) -> str:
    found = find(name)
    assert found is not None, name
    return found[0].native


def _adapters(arrays: Mapping[str, StoredArray]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """The two matrices of every adapter, stacked over layers, by the path of their kernel."""
    first, second = ADAPTER_MATRICES
    found = {}
    for path in arrays:
        folder, _, name = path.rpartition("/")
        if name == first:
            pair = (arrays[path], arrays[f"{folder}/{second}"])
            matrices = [stored.array.read().result() for stored in pair]
            found[f"{folder}/kernel"] = (matrices[0], matrices[1])
    return found
