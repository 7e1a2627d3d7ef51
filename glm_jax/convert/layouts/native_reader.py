"""The parameters of one of our checkpoints on disk, whoever wrote them.

Orbax keeps the arrays of a training run in one database, in chunks as devices held them. A
conversion writes zarr3 folders with uncompressed chunks. TensorStore reads both.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import tensorstore as ts
from etils import epath

from glm_jax.checkpoints.record import STATE_ITEM
from glm_jax.convert.array_layouts import original_shape
from glm_jax.convert.base_weights import TASK_PARAMETERS
from glm_jax.convert.names import Entry, by_native
from glm_jax.convert.tensors import STORED_DTYPES
from glm_jax.errors import UsageError
from glm_jax.io.paths import key_value_store

# Arrays are read and written once, so that nothing is kept in memory.
CONTEXT = {"cache_pool": {"total_bytes_limit": 0}}

# Read and written at a time, where an array has chunks that allow it.
BLOCK_BYTES = 4 << 20

PARAMETERS = "params"
DESCRIPTION_FILE = "_METADATA"
MAX_LAYERS = 9999  # a description with more is taken as damaged


@dataclasses.dataclass(frozen=True)
class Leaf:
    """One parameter of our tree on disk.

    Attributes:
      entry: its names and layout.
      array: [N, ...] for a parameter of the layers.
      where: the folder or database that holds it, for messages.
    """

    entry: Entry
    array: ts.TensorStore
    where: str

    @property
    def spans_layers(self) -> bool:
        """Whether reading one layer decodes others with it."""
        chunk = self.array.chunk_layout.read_chunk.shape
        return self.entry.in_layers and (chunk is None or chunk[0] != 1)

    def names(self) -> list[str]:
        """The original names of the tensors in it.

        Raises:
          UsageError: it has no layers, or more than any network.
        """
        if not self.entry.in_layers:
            return [self.entry.original]
        count = self.array.shape[0]
        if not 1 <= count <= MAX_LAYERS:
            raise UsageError(f"{self.where} has {count} layers; expected 1 to {MAX_LAYERS}")
        return [self.entry.name(layer) for layer in range(count)]

    def original_shape(self) -> tuple[int, ...]:
        """The shape of each of those tensors.

        Raises:
          UsageError: the array has not the axes of its parameter.
        """
        shape = tuple(self.array.shape)
        found = original_shape(self.entry.layout, shape[1:] if self.entry.in_layers else shape)
        if found is not None:
            return found
        raise UsageError(
            f"{self.where} has the shape {list(shape)}, which does not fit {self.entry.native}"
        )

    def read(self, layer: int | None) -> np.ndarray:
        """One layer, or the array of a parameter outside the layers.

        Raises:
          ValueError: it is missing or damaged.
        """
        array = self.array if layer is None else self.array[layer]
        # TensorStore holds the bytes of what it reads next to the array made of them.
        values = np.empty(array.shape, array.dtype.numpy_dtype)
        for rows in row_blocks(array):
            values[rows] = array[rows].read().result()
        return values


class LeafReader:
    """Reads parameters layer by layer.

    Where chunks span layers, as those of a training run do, all layers of the parameter read last
    are kept: its layers should be read one after the other.
    """

    def __init__(self) -> None:
        self._kept: tuple[str, np.ndarray] | None = None

    def read(self, leaf: Leaf, layer: int | None, name: str) -> np.ndarray:
        """One layer, or the array of a parameter outside the layers.

        Raises:
          UsageError: the tensor that messages call `name` is missing or damaged.
        """
        try:
            if layer is None or not leaf.spans_layers:
                return leaf.read(layer)
            if self._kept is None or self._kept[0] != leaf.entry.native:
                self._kept = None  # before the next is read, so that there are never two
                self._kept = leaf.entry.native, leaf.read(None)
        except (ValueError, OSError) as error:
            raise UsageError(f"{leaf.where}: {name} is damaged: {reason_of(error)}") from error
        return self._kept[1][layer].copy()

    def close(self) -> None:
        """Forgets what was read."""
        self._kept = None


def row_blocks(array: ts.TensorStore) -> Iterator[slice]:
    """Slices over the first axis: complete chunks of some `BLOCK_BYTES` each."""
    length, chunk = array.shape[0], array.chunk_layout.read_chunk.shape
    chunk_rows = max((chunk[0] if chunk else None) or length, 1)
    bytes_per_row = max(array.dtype.numpy_dtype.itemsize * math.prod(array.shape[1:]), 1)
    step = chunk_rows * max(BLOCK_BYTES // (chunk_rows * bytes_per_row), 1)
    for start in range(0, length, step):
        yield slice(start, min(start + step, length))


def leaf_keys(entry: Entry) -> tuple[str, ...]:
    """Where a parameter is in the saved tree."""
    return (PARAMETERS, *entry.native.split("/"))


def leaf_name(entry: Entry) -> str:
    """The name of a parameter's folder."""
    return ".".join(leaf_keys(entry))


class StoredArray(NamedTuple):
    """An array on disk, and the folder or database that holds it, for messages."""

    array: ts.TensorStore
    where: str


def open_leaves(step_folder: epath.Path) -> dict[str, Leaf]:
    """The parameters of a checkpoint's network by their paths in our tree.

    Raises:
      UsageError: the checkpoint's description is damaged, or has a parameter that is none of GLM's.
    """
    leaves = {}
    for native, (array, where) in open_arrays(step_folder).items():
        entry = by_native(native)
        if entry is not None:
            leaves[native] = Leaf(entry, array, where)
        elif native.split("/")[0] not in TASK_PARAMETERS:
            state = step_folder / STATE_ITEM
            raise UsageError(f"{state}: {native} is no parameter of a GLM network")
    return leaves


def open_arrays(step_folder: epath.Path) -> dict[str, StoredArray]:
    """All parameters of a checkpoint by their paths in our tree.

    Raises:
      UsageError: the checkpoint's description is damaged, or it has no parameters.
    """
    state = step_folder / STATE_ITEM
    try:
        description = json.loads((state / DESCRIPTION_FILE).read_text())
        keys = [
            [str(key["key"]) for key in leaf["key_metadata"]]
            for leaf in description["tree_metadata"].values()
        ]
        use_ocdbt, use_zarr3 = description["use_ocdbt"], description["use_zarr3"]
        stores_all = description.get("store_array_data_equal_to_fill_value", False)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UsageError(f"{state / DESCRIPTION_FILE} does not describe a checkpoint") from error
    context = ts.Context(CONTEXT)
    arrays = {}
    for parts in keys:
        if not parts or parts[0] != PARAMETERS:
            continue
        name, native = ".".join(parts), "/".join(parts[1:])
        store: Any = key_value_store(state / name)
        if use_ocdbt:
            store = {"driver": "ocdbt", "base": key_value_store(state), "path": f"{name}/"}
        spec = {
            "driver": "zarr3" if use_zarr3 else "zarr",
            "kvstore": store,
            "fill_missing_data_reads": not stores_all,
        }
        arrays[native] = _open_array(spec, f"{state}/{name}", context)
    if not arrays:
        raise UsageError(f"{state} holds no parameters")
    return arrays


def _open_array(spec: dict[str, Any], where: str, context: ts.Context) -> StoredArray:
    try:
        array = ts.open(spec, read=True, context=context).result()
    except ValueError as error:  # TensorStore raises it for all failures
        raise UsageError(f"{where} is missing or damaged: {reason_of(error)}") from error
    if array.dtype.name not in STORED_DTYPES:
        raise UsageError(f"{where} holds {array.dtype.name}; expected {', '.join(STORED_DTYPES)}")
    return StoredArray(array, where)


def reason_of(error: Exception) -> str:
    """TensorStore's message, without the specification of the array that it appends."""
    return str(error).partition(" [")[0].splitlines()[0]
