"""Our own checkpoints as a source of weights."""

from __future__ import annotations

import os
from collections.abc import Mapping

import numpy as np

from glm_jax.checkpoints.record import find_step, read_record
from glm_jax.convert.array_layouts import to_original
from glm_jax.convert.dimensions import measure
from glm_jax.convert.layouts.native_reader import Leaf, LeafReader, open_leaves
from glm_jax.convert.layouts.native_record import read_metadata, recorded_checksums, stored_dtypes
from glm_jax.convert.names import find
from glm_jax.convert.tensors import contiguous, require_finite
from glm_jax.convert.transfer import checksum
from glm_jax.convert.weights import TensorInfo
from glm_jax.errors import UsageError
from glm_jax.io.paths import resolve_path


class NativeCheckpoint:
    """One of our checkpoints, as far as its record describes it.

    Attributes:
      path: what the user named.
      step_folder: the checkpoint's.
      record: what was saved with it.
      metadata: what that says of the weights.
      reading_order: the names of its tensors, in the order that decodes every chunk once.
    """

    kind = "native"
    extra: tuple[str, ...] = ()  # the head or prompts of a finetuned run need not be announced
    reading_order: list[str]
    tensors: Mapping[str, TensorInfo]

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Opens the newest checkpoint of a run folder or of its checkpoints/, or the one given.

        Raises:
          UsageError: no checkpoint there.
          RunError: its record is damaged.
        """
        self.path = resolve_path(path, "the checkpoint")
        self.step_folder = find_step(self.path)
        self.record = read_record(self.step_folder)
        self.metadata = read_metadata(self.record, self.step_folder)


class NativeSource(NativeCheckpoint):
    """The parameters of one of our checkpoints, as tensors by their original names."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Opens the newest checkpoint of a run folder or of its checkpoints/, or the one given.

        Raises:
          UsageError: no checkpoint there, a damaged one, or not one of this network.
          RunError: its record is damaged.
        """
        super().__init__(path)
        self._leaves = open_leaves(self.step_folder)
        self._reader = LeafReader()
        self._checksums = recorded_checksums(self.record, self.step_folder)
        stored = stored_dtypes(self.record, self.step_folder)
        tensors = {
            name: TensorInfo(leaf.original_shape(), stored.get(name, leaf.array.dtype.numpy_dtype))
            for leaf in self._leaves.values()
            for name in leaf.names()
        }
        dimensions = measure(tensors, str(self.step_folder), self.where, rotary=True)
        self.tensors: Mapping[str, TensorInfo] = {
            name: tensors[name] for name in dimensions.shapes()
        }
        spans_layers = any(leaf.spans_layers for leaf in self._leaves.values())
        self.reading_order = list(tensors if spans_layers else self.tensors)

    @property
    def converted(self) -> bool:
        """Whether a conversion wrote it, with checksums that orbax doesn't know of."""
        return bool(self._checksums)

    def __enter__(self) -> NativeSource:
        return self

    def __exit__(self, *_error: object) -> None:
        self._reader.close()

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
        array = self._reader.read(leaf, layer, name)
        tensor = contiguous(to_original(leaf.entry.layout, array))
        tensor = tensor.astype(self.tensors[name].dtype, copy=False)
        expected = self._checksums.get(name)
        if expected is not None and checksum(tensor) != expected:
            raise UsageError(f"{leaf.where}: {name} is damaged: its checksum is another")
        require_finite(tensor, name, leaf.where)
        return tensor
