"""Tiny checkpoints in every format, written without torch."""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path

import ml_dtypes
import numpy as np

from glm_jax.convert.dimensions import Dimensions
from glm_jax.convert.layouts.huggingface_writer import HuggingFaceDestination
from glm_jax.convert.layouts.original_writer import OriginalDestination
from glm_jax.convert.weights import SourceMetadata, TensorInfo

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
HEADS = 4
DIMENSIONS = Dimensions(
    vocab_size=24,
    num_layers=2,
    hidden_size=8,
    position_rows=7,
    block_positions=True,
    relative_heads=None,
)
LEGACY_START = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03."
_STORAGES = {
    "float16": "HalfStorage",
    "bfloat16": "BFloat16Storage",
    "float32": "FloatStorage",
}


def tiny_tensors(
    dtype: np.dtype | type = np.float16, seed: int = 0, dimensions: Dimensions = DIMENSIONS
) -> dict[str, np.ndarray]:
    """Random tensors of a network."""
    random = np.random.default_rng(seed)
    shapes = dimensions.shapes()
    return {name: random.normal(size=shape).astype(dtype) for name, shape in shapes.items()}


def infos_of(tensors: Mapping[str, np.ndarray]) -> dict[str, TensorInfo]:
    """Shapes and dtypes."""
    return {name: TensorInfo(tensor.shape, tensor.dtype) for name, tensor in tensors.items()}


def write_original(
    folder: Path, tensors: Mapping[str, np.ndarray], ranks: int = 1, iteration: int = 5
) -> Path:
    """An original checkpoint in a new folder."""
    folder.mkdir(parents=True)
    destination = OriginalDestination(
        folder, list(tensors), infos_of(tensors), iteration, ranks, HEADS
    )
    for name, tensor in tensors.items():
        destination.write(name, tensor)
    destination.finish()
    return folder


def write_hugging_face(
    folder: Path, tensors: Mapping[str, np.ndarray], max_shard_bytes: int = 1 << 30
) -> Path:
    """A Hugging Face folder in a new folder."""
    folder.mkdir(parents=True)
    destination = HuggingFaceDestination(
        folder,
        list(tensors),
        infos_of(tensors),
        SourceMetadata(HEADS),
        max_shard_bytes=max_shard_bytes,
    )
    for name, tensor in tensors.items():
        destination.write(name, tensor)
    destination.finish()
    return folder


def text_opcodes(text: str) -> bytes:
    """Pushes a text."""
    data = text.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def tuple_opcodes(*values: int) -> bytes:
    """Pushes a tuple of whole numbers."""
    return b"(" + b"".join(b"J" + struct.pack("<i", value) for value in values) + b"t"


def tensor_opcodes(
    key: str,
    storage: str,
    count: int,
    shape: tuple[int, ...],
    *,
    strides: tuple[int, ...] | None = None,
    offset: int = 0,
    legacy: bool = False,
) -> bytes:
    """Pushes a tensor, contiguous unless strides are given."""
    if strides is None:
        strides = tuple(int(np.prod(shape[axis + 1 :])) for axis in range(len(shape)))
    return (
        b"ctorch._utils\n_rebuild_tensor_v2\n(("
        + text_opcodes("storage")
        + f"ctorch\n{storage}\n".encode()
        + text_opcodes(key)
        + text_opcodes("cpu")
        + b"\x8a\x08"
        + struct.pack("<q", count)
        + (b"N" if legacy else b"")
        + b"tQJ"
        + struct.pack("<i", offset)
        + tuple_opcodes(*shape)
        + tuple_opcodes(*strides)
        + b"\x89ccollections\nOrderedDict\n)RtR"
    )


def state_dict_opcodes(tensors: Mapping[str, np.ndarray], *, legacy: bool = False) -> bytes:
    """Pushes {"iteration": 5, "module": OrderedDict(name -> tensor)}; storage n is tensor n's."""
    items = b"".join(
        text_opcodes(name)
        + tensor_opcodes(
            str(key), _STORAGES[tensor.dtype.name], tensor.size, tensor.shape, legacy=legacy
        )
        for key, (name, tensor) in enumerate(tensors.items())
    )
    module = b"ccollections\nOrderedDict\n)R(" + items + b"u"
    return b"}(" + text_opcodes("iteration") + b"K\x05" + text_opcodes("module") + module + b"u"


def bytes_of(tensor: np.ndarray) -> bytes:
    """The tensor's bytes, also of dtypes that are not numpy's own."""
    return np.ascontiguousarray(tensor).tobytes()


def zip_bytes(
    pickled: bytes,
    storages: Mapping[str, bytes],
    *,
    compression: int = zipfile.ZIP_STORED,
    root: str = "archive",
    extra: Mapping[str, bytes] | None = None,
) -> bytes:
    """A torch file in the zip format from its pickle and storages."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as archive:
        archive.writestr(f"{root}/data.pkl", pickled)
        for key, data in storages.items():
            archive.writestr(f"{root}/data/{key}", data)
        for name, data in (extra or {}).items():
            archive.writestr(name, data)
    return stream.getvalue()


def legacy_bytes(pickled: bytes, storages: Mapping[str, tuple[int, bytes]]) -> bytes:
    """A torch file in the legacy format; a storage has a number of elements and bytes."""
    system = b"\x80\x02}" + text_opcodes("little_endian") + b"\x88s."
    keys = b"\x80\x02](" + b"".join(map(text_opcodes, storages)) + b"e."
    data = b"".join(struct.pack("<q", count) + data for count, data in storages.values())
    return LEGACY_START + system + pickled + keys + data


def legacy_checkpoint(tensors: Mapping[str, np.ndarray]) -> bytes:
    """A whole checkpoint in the legacy format."""
    pickled = b"\x80\x02" + state_dict_opcodes(tensors, legacy=True) + b"."
    storages = {
        str(key): (tensor.size, bytes_of(tensor)) for key, tensor in enumerate(tensors.values())
    }
    return legacy_bytes(pickled, storages)


def zip_checkpoint(
    tensors: Mapping[str, np.ndarray],
    *,
    compression: int = zipfile.ZIP_STORED,
    root: str = "archive",
    extra: Mapping[str, bytes] | None = None,
) -> bytes:
    """A whole checkpoint in the zip format."""
    pickled = b"\x80\x02" + state_dict_opcodes(tensors) + b"."
    storages = {str(key): bytes_of(tensor) for key, tensor in enumerate(tensors.values())}
    return zip_bytes(pickled, storages, compression=compression, root=root, extra=extra)
