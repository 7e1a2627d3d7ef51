"""Writing the files with weights of a Hugging Face folder, from tensors that come one at a time."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from glm_jax.convert.formats.safetensors import SafetensorsWriter
from glm_jax.convert.formats.torch_writer import Announced, TorchWriter
from glm_jax.convert.weights import TensorInfo
from glm_jax.errors import RunError

MAX_SHARD_BYTES = 5_000_000_000
# The name of a file alone and of one among several, as the transformers library has them.
FILE_FORMATS = {"safetensors": ("model", "safetensors"), "bin": ("pytorch_model", "bin")}


class ShardedWriter:
    """Safetensors or torch files, and their index where there are several.

    Args:
      folder: an empty folder.
      tensors: shape and dtype of every tensor by its stored name; files are filled in this order.
      file_format: one of `FILE_FORMATS`.
      max_shard_bytes: a larger tensor has a file of its own.

    Raises:
      RunError: the disk failed.
    """

    def __init__(
        self,
        folder: Path,
        tensors: Mapping[str, TensorInfo],
        file_format: str,
        max_shard_bytes: int,
    ) -> None:
        stem, suffix = FILE_FORMATS[file_format]
        self._folder, self._index_file = folder, f"{stem}.{suffix}.index.json"
        self._total = sum(info.nbytes for info in tensors.values())
        shards = _plan_shards(tensors, max_shard_bytes)
        self._index: dict[str, str] = {}
        self._writers: dict[str, SafetensorsWriter | TorchWriter] = {}
        for number, names in enumerate(shards, 1):
            part = "" if len(shards) == 1 else f"-{number:05d}-of-{len(shards):05d}"
            file = f"{stem}{part}.{suffix}"
            self._index |= dict.fromkeys(names, file)
            held = {name: tensors[name] for name in names}
            self._writers[file] = (
                SafetensorsWriter(folder / file, held)
                if file_format == "safetensors"
                else TorchWriter(folder / file, {n: Announced(n, held[n]) for n in held})
            )

    def write(self, name: str, tensor: np.ndarray) -> None:
        """Adds one tensor under its stored name.

        Raises:
          RunError: the disk failed.
        """
        self._writers[self._index[name]].write(name, tensor)

    def finish(self) -> None:
        """Completes the files, and writes their index where there is more than one.

        Raises:
          RunError: the disk failed.
        """
        for writer in self._writers.values():
            writer.finish()
        if len(self._writers) == 1:
            return
        index = {"metadata": {"total_size": self._total}, "weight_map": self._index}
        try:
            (self._folder / self._index_file).write_text(json.dumps(index, indent=2) + "\n")
        except OSError as error:
            raise RunError(f"{self._folder} can't be written: {error.strerror}") from error


def _plan_shards(tensors: Mapping[str, TensorInfo], max_bytes: int) -> list[list[str]]:
    """The names in every file; files are filled one after the other."""
    shards: list[list[str]] = [[]]
    filled = 0
    for name, info in tensors.items():
        if shards[-1] and filled + info.nbytes > max_bytes:
            shards.append([])
            filled = 0
        shards[-1].append(name)
        filled += info.nbytes
    return shards
