"""Writing one of our checkpoints from tensors that come one at a time.

Orbax saves complete arrays only, and a parameter of all layers may be larger than memory. So
TensorStore writes the arrays block by block, in a format that orbax reads: zarr3, one folder per
parameter, in uncompressed chunks of complete rows of one layer. The checksums of all tensors are in
the record.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import tensorstore as ts

from glm_jax.checkpoints.record import PARAMETER_LAYOUT, RECORD_ITEM, STATE_ITEM
from glm_jax.convert.array_layouts import native_shape, to_native
from glm_jax.convert.layouts.native_reader import (
    BLOCK_BYTES,
    CONTEXT,
    DESCRIPTION_FILE,
    leaf_keys,
    leaf_name,
    reason_of,
    row_blocks,
)
from glm_jax.convert.layouts.native_record import weights_record
from glm_jax.convert.names import Entry, by_native, find
from glm_jax.convert.tensors import contiguous, widest
from glm_jax.convert.weights import SourceMetadata, TensorInfo
from glm_jax.errors import RunError
from glm_jax.io.paths import key_value_store

_DICT_KEY = 2  # how orbax says that a key of the tree is one of a dictionary

# The metadata that orbax needs to read a tree of arrays.
_TREE = {
    "use_ocdbt": False,
    "use_zarr3": True,
    "store_array_data_equal_to_fill_value": True,
    "custom_metadata": None,
}


class NativeDestination:
    """A checkpoint of ours being written into an empty run folder."""

    def __init__(
        self,
        folder: Path,
        order: Sequence[str],
        tensors: Mapping[str, TensorInfo],
        metadata: SourceMetadata,
        model: Mapping[str, Any],
        checksums: Mapping[str, int],
    ) -> None:
        """Lays out every parameter.

        Args:
          folder: an empty folder, which becomes a run folder.
          order: the names of `tensors` in the order they will come in; any will do.
          tensors: what will be written, by original names.
          metadata: what else is needed to write the source again.
          model: the fields of the model's configuration.
          checksums: CRC-32 of every tensor, complete when `finish` is called.
        """
        self.order = list(order)
        self._folder = folder / "checkpoints" / str(metadata.iteration or 0)
        self._state = self._folder / STATE_ITEM
        self._model, self._metadata, self._infos = model, metadata, tensors
        self._checksums = checksums
        # Files are synchronized by the file system; a conversion that is killed starts again.
        self._context = ts.Context(CONTEXT | {"file_io_sync": False})
        self._arrays: dict[str, ts.TensorStore] = {}
        self._parameters: dict[str, TensorInfo] = {}
        for entry, infos in _leaves(tensors):
            dtype = widest(info.dtype for info in infos)
            self._parameters[entry.native] = TensorInfo(_native_shape(entry, infos), dtype)

    def write(self, name: str, tensor: np.ndarray) -> None:
        """Adds one tensor under its original name.

        Raises:
          RunError: the disk failed.
        """
        found = find(name)
        if found is None:
            raise KeyError(name)
        entry, layer = found
        dtype = self._parameters[entry.native].dtype
        native = contiguous(to_native(entry.layout, tensor)).astype(dtype, copy=False)
        with _failing_as_run_error(self._folder):
            array = self._array(entry)
            target = array if layer is None else array[layer]
            # TensorStore copies what it writes.
            for rows in row_blocks(target):
                target[rows].write(native[rows]).result()

    def finish(self) -> None:
        """Writes orbax's metadata and the record.

        Raises:
          RunError: the disk failed.
        """
        leaves = {}
        for native in self._parameters:
            entry = by_native(native)
            assert entry is not None, native
            keys = leaf_keys(entry)
            leaves[str(keys)] = {
                "key_metadata": [{"key": key, "key_type": _DICT_KEY} for key in keys],
                "value_metadata": {"value_type": "np.ndarray", "skip_deserialize": False},
            }
        now = time.time_ns()
        times = {"init_timestamp_nsecs": now, "commit_timestamp_nsecs": now}
        with _failing_as_run_error(self._folder):
            _write_json(self._state / DESCRIPTION_FILE, _TREE | {"tree_metadata": leaves})
            _write_json(self._folder / RECORD_ITEM / "metadata", self._record())
            _write_json(self._folder / "_CHECKPOINT_METADATA", times)

    def _array(self, entry: Entry) -> ts.TensorStore:
        """The array of a parameter, created when its first layer is written."""
        if entry.native not in self._arrays:
            info = self._parameters[entry.native]
            block = _block_shape(info.shape[entry.in_layers :], info.dtype)
            chunk = (1, *block) if entry.in_layers else block
            spec = {
                "driver": "zarr3",
                "kvstore": key_value_store(self._state / leaf_name(entry)),
                # A chunk of zeros is stored like any other: a missing one is always an error.
                "store_data_equal_to_fill_value": True,
                "metadata": {
                    "shape": list(info.shape),
                    "data_type": info.dtype.name,
                    "chunk_grid": {
                        "name": "regular",
                        "configuration": {"chunk_shape": list(chunk)},
                    },
                    "codecs": [{"name": "bytes", "configuration": {"endian": "little"}}],
                },
                "create": True,
            }
            self._arrays[entry.native] = ts.open(spec, context=self._context).result()
        return self._arrays[entry.native]

    def _record(self) -> dict[str, Any]:
        changed = {
            name: info.dtype
            for name, info in self._infos.items()
            if (found := find(name)) and self._parameters[found[0].native].dtype != info.dtype
        }
        return {
            "step": self._metadata.iteration or 0,
            "parameter_layout": PARAMETER_LAYOUT,
            "configuration": {"model": dict(self._model)},
            **weights_record(self._metadata, changed, self._checksums),
        }


def _block_shape(shape: tuple[int, ...], dtype: np.dtype) -> tuple[int, ...]:
    """Complete rows of at most `BLOCK_BYTES`, so that a block is read and written by itself."""
    rows = max(BLOCK_BYTES // TensorInfo(shape[1:], dtype).nbytes, 1)
    return (min(rows, shape[0]), *shape[1:])


def _leaves(tensors: Mapping[str, TensorInfo]) -> list[tuple[Entry, list[TensorInfo]]]:
    """Every parameter of ours with the original tensors that make it up, layer by layer."""
    leaves: dict[str, tuple[Entry, list[TensorInfo]]] = {}
    for name, info in tensors.items():
        found = find(name)
        assert found is not None, name
        leaves.setdefault(found[0].native, (found[0], []))[1].append(info)
    return list(leaves.values())


def _native_shape(entry: Entry, infos: Sequence[TensorInfo]) -> tuple[int, ...]:
    shape = native_shape(entry.layout, infos[0].shape)
    return (len(infos), *shape) if entry.in_layers else shape


def _write_json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


@contextmanager
def _failing_as_run_error(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise RunError(f"{folder} can't be written: {error.strerror}") from error
    except ValueError as error:  # TensorStore raises it for all failures
        raise RunError(f"{folder} can't be written: {reason_of(error)}") from error
