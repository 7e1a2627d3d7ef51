"""The parameters of one of our checkpoints on disk, whoever wrote them.

Orbax keeps the arrays of a training run in one database, in chunks as devices held them. A
conversion writes zarr3 folders with one uncompressed chunk a layer, which are read here without
TensorStore: that is several times as fast.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import tensorstore as ts

from glm_jax.checkpoints.record import STATE_ITEM
from glm_jax.convert.names import Entry, Layout, by_native
from glm_jax.convert.tensors import DTYPES
from glm_jax.errors import UsageError

PARAMETERS = "params"
DESCRIPTION_FILE = "_METADATA"
ARRAY_FILE = "zarr.json"
MOST_LAYERS = 9999  # of a damaged description, no more are believed

# A conversion's chunks are the plain bytes of one layer, or of a whole parameter outside them.
CODECS: list[dict[str, Any]] = [{"name": "bytes", "configuration": {"endian": "little"}}]


@dataclasses.dataclass(frozen=True)
class Leaf:
    """One parameter of our tree on disk.

    Attributes:
      entry: its names and layout.
      array: [N, ...] for a parameter of the layers.
      where: the folder or database that holds it, for messages.
      chunk_folder: holds one file a layer, or one in all, as a conversion writes it; else None.
    """

    entry: Entry
    array: ts.TensorStore
    where: str
    chunk_folder: Path | None

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
        if not 1 <= count <= MOST_LAYERS:
            raise UsageError(f"{self.where} has {count} layers; expected 1 to {MOST_LAYERS}")
        return [self.entry.name(layer) for layer in range(count)]

    def original_shape(self) -> tuple[int, ...]:
        """The shape of each of those tensors.

        Raises:
          UsageError: the array has not the axes of its parameter.
        """
        shape = tuple(self.array.shape)
        match self.entry.layout, shape[1:] if self.entry.in_layers else shape:
            case Layout.SAME, (_, *_) as same:
                return same
            case Layout.MATRIX, (columns, rows):
                return rows, columns
            case Layout.FUSED_MATRIX, (columns, 3, third):
                return 3 * third, columns
            case Layout.FUSED_VECTOR, (3, third):
                return (3 * third,)
        raise UsageError(
            f"{self.where} has the shape {list(shape)}, which does not fit {self.entry.native}"
        )

    def read(self, layer: int | None) -> np.ndarray:
        """One layer, or the whole array of a parameter outside the layers.

        Raises:
          ValueError, OSError: it is missing or damaged.
        """
        if self.chunk_folder is not None:
            return self._read_chunk(self.chunk_folder, layer)
        return (self.array if layer is None else self.array[layer]).read().result()

    def _read_chunk(self, folder: Path, layer: int | None) -> np.ndarray:
        """The chunk of one layer, its bytes unchecked."""
        whole = tuple(self.array.shape)
        path = chunk_path(folder, len(whole), layer)
        array = np.empty(whole if layer is None else whole[1:], self.array.dtype.numpy_dtype)
        if path.stat().st_size != array.nbytes:
            raise ValueError(f"{path} has not the {array.nbytes} bytes expected")
        remaining = array.reshape(-1).view(np.uint8).data
        with path.open("rb", buffering=0) as file:
            while remaining:
                count = file.readinto(remaining)
                if not count:
                    raise ValueError(f"{path} ends early")
                remaining = remaining[count:]
        return array


def leaf_keys(entry: Entry) -> tuple[str, ...]:
    """Where a parameter is in the saved tree."""
    return (PARAMETERS, *entry.native.split("/"))


def leaf_name(entry: Entry) -> str:
    """The name of a parameter's folder."""
    return ".".join(leaf_keys(entry))


def chunk_path(folder: Path, num_axes: int, layer: int | None) -> Path:
    """The file of one layer of a parameter, or of a whole one."""
    places = [0 if layer is None else layer] + [0] * (num_axes - 1)
    return folder.joinpath("c", *map(str, places))


def open_leaves(step_folder: Path) -> dict[str, Leaf]:
    """The parameters of a checkpoint by their paths in our tree.

    Raises:
      UsageError: the checkpoint's description is damaged, or has a parameter that is none of GLM's.
    """
    state = (step_folder / STATE_ITEM).absolute()
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
    context = ts.Context({"cache_pool": {"total_bytes_limit": 0}})
    leaves = {}
    for parts in keys:
        if not parts or parts[0] != PARAMETERS:
            continue
        name, native = ".".join(parts), "/".join(parts[1:])
        entry = by_native(native)
        if entry is None:
            raise UsageError(f"{state}: {native} is no parameter of a GLM network")
        store: dict[str, Any] = {"driver": "file", "path": f"{state}/{name}/"}
        if use_ocdbt:
            base = {"driver": "file", "path": f"{state}/"}
            store = {"driver": "ocdbt", "base": base, "path": f"{name}/"}
        spec = {
            "driver": "zarr3" if use_zarr3 else "zarr",
            "kvstore": store,
            "fill_missing_data_reads": not stores_all,
        }
        leaves[native] = _open_leaf(entry, spec, f"{state}/{name}", context)
    if not leaves:
        raise UsageError(f"{state} holds no parameters")
    return leaves


def _open_leaf(entry: Entry, spec: dict[str, Any], where: str, context: ts.Context) -> Leaf:
    try:
        array = ts.open(spec, read=True, context=context).result()
    except ValueError as error:  # TensorStore raises it for all failures
        raise UsageError(f"{where} is missing or damaged: {reason_of(error)}") from error
    if array.dtype.name not in DTYPES:
        raise UsageError(f"{where} holds {array.dtype.name}; expected {', '.join(DTYPES)}")
    return Leaf(entry, array, where, Path(where) if _one_file_a_layer(entry, array) else None)


def _one_file_a_layer(entry: Entry, array: ts.TensorStore) -> bool:
    """Whether an array has the form that a conversion writes."""
    spec = array.spec().to_json()
    shape = tuple(array.shape)
    return (
        spec["driver"] == "zarr3"
        and spec["kvstore"]["driver"] == "file"
        and spec["metadata"].get("codecs") == CODECS
        and spec["metadata"].get("chunk_key_encoding", {"name": "default"}) == {"name": "default"}
        and array.chunk_layout.read_chunk.shape == ((1, *shape[1:]) if entry.in_layers else shape)
    )


def reason_of(error: Exception) -> str:
    """TensorStore's own words, without the description of the array that it appends."""
    return str(error).partition(" [")[0].splitlines()[0]
