"""Writing a Hugging Face folder of the `glm-*` family from tensors that come one at a time."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from glm_jax.convert.dimensions import Dimensions, measure
from glm_jax.convert.formats.safetensors import SafetensorsWriter
from glm_jax.convert.infer_config import find_heads
from glm_jax.convert.layouts.huggingface_config import CONFIG_FILE, config_fields
from glm_jax.convert.layouts.huggingface_files import WEIGHT_FILES
from glm_jax.convert.layouts.state_dict import HUGGINGFACE_PREFIX
from glm_jax.convert.weights import SourceMetadata, TensorInfo
from glm_jax.errors import RunError

_MAX_SHARD_BYTES = 5_000_000_000


class HuggingFaceDestination:
    """Writes a Hugging Face folder: safetensors in shards of at most 5 GB, and config.json.

    Args:
      folder: an empty folder.
      order: the names in the order in which tensors will come.
      tensors: shape and dtype of each.
      metadata: H, the names' prefix and the config.json to bring up to date, where they are known.
      max_shard_bytes: a larger tensor has a file of its own.

    Raises:
      RunError: the disk failed.
    """

    def __init__(
        self,
        folder: Path,
        order: list[str],
        tensors: Mapping[str, TensorInfo],
        metadata: SourceMetadata,
        *,
        max_shard_bytes: int = _MAX_SHARD_BYTES,
    ) -> None:
        self.order = order
        self._folder = folder
        # The names that GLMForConditionalGeneration has, unless the weights came with others.
        self._prefix = (
            HUGGINGFACE_PREFIX if metadata.huggingface_config is None else metadata.name_prefix
        )
        dimensions = measure(tensors, str(folder), lambda _: str(folder))
        heads = find_heads(dimensions, metadata.num_attention_heads)
        self._config = config_fields(dimensions, tensors, heads, metadata.huggingface_config)
        self._index = _plan_shards(dimensions, tensors, self._prefix, max_shard_bytes)
        self._total = sum(info.nbytes for info in tensors.values())
        self._writers: dict[str, SafetensorsWriter] = {}
        for file in dict.fromkeys(self._index.values()):
            held = {
                name: tensors[name.removeprefix(self._prefix)]
                for name, shard in self._index.items()
                if shard == file
            }
            self._writers[file] = SafetensorsWriter(folder / file, held)

    def write(self, name: str, tensor: np.ndarray) -> None:
        """Adds one tensor under its original name.

        Raises:
          RunError: the disk failed.
        """
        full = f"{self._prefix}{name}"
        self._writers[self._index[full]].write(full, tensor)

    def finish(self) -> None:
        """Completes the files and writes the index, where there is more than one, and config.json.

        Raises:
          RunError: the disk failed.
        """
        for writer in self._writers.values():
            writer.finish()
        try:
            if len(self._writers) > 1:
                index = {"metadata": {"total_size": self._total}, "weight_map": self._index}
                path = self._folder / f"{WEIGHT_FILES[0]}.index.json"
                path.write_text(json.dumps(index, indent=2) + "\n")
            path = self._folder / CONFIG_FILE
            path.write_text(json.dumps(self._config, indent=2) + "\n")
        except OSError as error:
            raise RunError(f"{self._folder} can't be written: {error.strerror}") from error


def _plan_shards(
    dimensions: Dimensions, tensors: Mapping[str, TensorInfo], prefix: str, max_bytes: int
) -> dict[str, str]:
    """The file of every tensor by its full name; files are filled one after the other."""
    shards: list[list[str]] = [[]]
    filled = 0
    for name in dimensions.shapes():
        nbytes = tensors[name].nbytes
        if shards[-1] and filled + nbytes > max_bytes:
            shards.append([])
            filled = 0
        shards[-1].append(f"{prefix}{name}")
        filled += nbytes
    if len(shards) == 1:
        return dict.fromkeys(shards[0], WEIGHT_FILES[0])
    return {
        name: f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        for number, shard in enumerate(shards, 1)
        for name in shard
    }
