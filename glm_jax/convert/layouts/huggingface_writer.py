"""Writing a Hugging Face folder of the `glm-*` family from tensors that come one at a time."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from glm_jax.convert.dimensions import measure
from glm_jax.convert.infer_config import find_heads
from glm_jax.convert.layouts.huggingface_config import config_fields, write_config
from glm_jax.convert.layouts.sharded_writer import MAX_SHARD_BYTES, ShardedWriter
from glm_jax.convert.layouts.state_dict import HUGGINGFACE_PREFIX
from glm_jax.convert.weights import SourceMetadata, TensorInfo


class HuggingFaceDestination:
    """Writes a Hugging Face folder: files of at most 5 GB, and config.json.

    Args:
      folder: an empty folder.
      order: the names in the order in which tensors will come.
      tensors: shape and dtype of each.
      metadata: H, the names' prefix and the config.json to bring up to date, where they are known.
      file_format: one of `FILE_FORMATS`.
      max_shard_bytes: a larger tensor has a file of its own.
      fields: of config.json that replace those that it has otherwise.
      head: of a classifier, by the names that it gets; written last.

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
        file_format: str = "safetensors",
        max_shard_bytes: int = MAX_SHARD_BYTES,
        fields: Mapping[str, Any] | None = None,
        head: Mapping[str, np.ndarray] | None = None,
    ) -> None:
        self.order = order
        self._folder = folder
        # The names that GLMForConditionalGeneration has, unless the weights came with others.
        self._prefix = (
            HUGGINGFACE_PREFIX if metadata.huggingface_config is None else metadata.name_prefix
        )
        dimensions = measure(tensors, str(folder), lambda _: str(folder))
        heads = find_heads(dimensions, metadata.num_attention_heads)
        kept = metadata.huggingface_config
        self._config = config_fields(dimensions, tensors, heads, kept, fields or {})
        stored = {f"{self._prefix}{name}": tensors[name] for name in dimensions.shapes()}
        self._head = head or {}
        stored |= {name: TensorInfo(head.shape, head.dtype) for name, head in self._head.items()}
        self._files = ShardedWriter(folder, stored, file_format, max_shard_bytes)

    def write(self, name: str, tensor: np.ndarray) -> None:
        """Adds one tensor under its original name.

        Raises:
          RunError: the disk failed.
        """
        self._files.write(f"{self._prefix}{name}", tensor)

    def finish(self) -> None:
        """Completes the files and writes config.json.

        Raises:
          RunError: the disk failed.
        """
        for name, tensor in self._head.items():
            self._files.write(name, tensor)
        self._files.finish()
        write_config(self._folder, self._config)
