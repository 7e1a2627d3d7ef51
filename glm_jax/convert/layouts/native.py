"""Our own checkpoints as a source of weights."""

from __future__ import annotations

import os
from collections.abc import Mapping

import numpy as np

from glm_jax.checkpoints.record import find_step, read_record
from glm_jax.convert.dimensions import measure
from glm_jax.convert.layouts.native_reader import Leaf, open_leaves, reason_of
from glm_jax.convert.layouts.native_record import read_metadata, recorded_checksums, stored_dtypes
from glm_jax.convert.names import find, to_original
from glm_jax.convert.tensors import contiguous, require_finite
from glm_jax.convert.transfer import checksum
from glm_jax.convert.weights import TensorInfo
from glm_jax.errors import UsageError
from glm_jax.io.paths import resolve_path


class NativeSource:
    """The parameters of one of our checkpoints, as tensors by their original names.

    Where chunks span layers, as those of a training run do, all layers of the parameter read last
    are kept: its layers should be read one after the other.
    """

    kind = "native"
    extra: tuple[str, ...] = ()  # a run's checkpoint holds its parameters and nothing else

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Opens the newest checkpoint of a run folder or of its checkpoints/, or the one given.

        Raises:
          UsageError: no checkpoint there, a damaged one, or not one of this network.
          RunError: its record is damaged.
        """
        self.path = resolve_path(path, "the checkpoint")
        self.step_folder = find_step(self.path)
        self.record = read_record(self.step_folder)
        self.metadata = read_metadata(self.record, self.step_folder)
        self._leaves = open_leaves(self.step_folder)
        self._kept: tuple[str, np.ndarray] | None = None
        self._checksums = recorded_checksums(self.record, self.step_folder)
        stored = stored_dtypes(self.record, self.step_folder)
        tensors = {
            name: TensorInfo(leaf.original_shape(), stored.get(name, leaf.array.dtype.numpy_dtype))
            for leaf in self._leaves.values()
            for name in leaf.names()
        }
        dimensions = measure(tensors, str(self.step_folder), self.where)
        self.tensors: Mapping[str, TensorInfo] = {
            name: tensors[name] for name in dimensions.shapes()
        }
        spans_layers = any(leaf.spans_layers for leaf in self._leaves.values())
        # The order that decodes every chunk once.
        self.reading_order = list(tensors if spans_layers else self.tensors)

    @property
    def converted(self) -> bool:
        """Whether a conversion wrote it, with checksums that orbax doesn't know of."""
        return bool(self._checksums)

    def __enter__(self) -> NativeSource:
        return self

    def __exit__(self, *_error: object) -> None:
        self._kept = None

    def _leaf(self, name: str) -> tuple[Leaf, int | None]:
        found = find(name)
        if found is None:
            raise KeyError(name)
        return self._leaves[found[0].native], found[1]

    def where(self, name: str) -> str:
        """The folder that holds a tensor."""
        return self._leaf(name)[0].where

    def read(self, name: str) -> np.ndarray:
        """One tensor in its stored dtype and the original's layout.

        Raises:
          UsageError: its bytes are damaged or missing, or a number isn't finite.
        """
        leaf, layer = self._leaf(name)
        try:
            array = self._read_layer(leaf, layer)
        except (ValueError, OSError) as error:
            raise UsageError(f"{leaf.where}: {name} is damaged: {reason_of(error)}") from error
        tensor = contiguous(to_original(leaf.entry.layout, array))
        tensor = tensor.astype(self.tensors[name].dtype, copy=False)
        expected = self._checksums.get(name)
        if expected is not None and checksum(tensor) != expected:
            raise UsageError(f"{leaf.where}: {name} is damaged: its checksum is another")
        require_finite(tensor, name, leaf.where)
        return tensor

    def _read_layer(self, leaf: Leaf, layer: int | None) -> np.ndarray:
        if not leaf.spans_layers:
            return leaf.read(layer)
        if self._kept is None or self._kept[0] != leaf.entry.native:
            self._kept = None  # before the next is read, so that there are never two
            self._kept = leaf.entry.native, leaf.read(None)
        return self._kept[1][layer].copy()
