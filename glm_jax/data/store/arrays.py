"""One-dimensional arrays on disk or in a bucket, written in order and checked when read."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import tensorstore as ts

from glm_jax.errors import RunError
from glm_jax.io.paths import key_value_store

# A shard is a file. A chunk is what one read fetches and one checksum covers: 16 KiB of uint16 ids.
SHARD_ELEMENTS = 1 << 22
CHUNK_ELEMENTS = 1 << 13


def create_array(location: str, data_type: str, length: int) -> None:
    """Make an array whose elements are written later, shard by shard."""
    with _failing_as(f"{location} cannot be written"):
        ts.open(_new_array(location, data_type, length)).result()


def write_part(location: str, start: int, values: np.ndarray) -> None:
    """Write one shard (the last may be short) of an array made before."""
    spec = {
        "driver": "zarr3",
        "kvstore": key_value_store(location),
        "store_data_equal_to_fill_value": True,
    }
    with _failing_as(f"{location} cannot be written"):
        array = ts.open(spec, write=True).result()
        part = array[start : start + len(values)]
        part.write(values.astype(array.dtype.numpy_dtype)).result()


def _new_array(location: str, data_type: str, length: int) -> dict[str, Any]:
    """TensorStore's description of an array to be made at ``location``, a path or URL."""
    checked: list[dict[str, Any]] = [
        {"name": "bytes", "configuration": {"endian": "little"}},
        {"name": "crc32c"},
    ]
    sharding = {
        "chunk_shape": [CHUNK_ELEMENTS],
        "codecs": checked,
        "index_codecs": checked,
        "index_location": "end",
    }
    return {
        "driver": "zarr3",
        "kvstore": key_value_store(location),
        "metadata": {
            "shape": [length],
            "data_type": data_type,
            "chunk_grid": {
                "name": "regular",
                "configuration": {"chunk_shape": [SHARD_ELEMENTS]},
            },
            "codecs": [{"name": "sharding_indexed", "configuration": sharding}],
        },
        # A chunk of zeros is stored like any other, so that a missing one is always a fault.
        "store_data_equal_to_fill_value": True,
        "create": True,
    }


def open_array(location: str, length: int, context: ts.Context) -> ts.TensorStore:
    spec = {
        "driver": "zarr3",
        "kvstore": key_value_store(location),
        "fill_missing_data_reads": False,
        "recheck_cached_data": False,
        "recheck_cached_metadata": False,
    }
    with _failing_as(f"array {location} is missing or damaged"):
        array = ts.open(spec, read=True, context=context).result()
    if array.shape != (length,):
        raise RunError(
            f"array {location} holds {array.shape} values, but the store's metadata says {length}"
        )
    return array


def read_array(array: ts.TensorStore, location: str) -> np.ndarray:
    with _failing_as(f"array {location} is damaged"):
        return array.read().result()


@contextmanager
def _failing_as(sentence: str) -> Iterator[None]:
    """Turn TensorStore's failures (it raises ValueError for all of them) into one sentence."""
    try:
        yield
    except ValueError as error:
        raise RunError(f"{sentence}: {reason_of(error)}") from error


def reason_of(error: Exception) -> str:
    """TensorStore's own words, without the description of the array that it appends."""
    return str(error).partition(" [")[0]
