"""Writing ChatGLM-6B's folders from tensors that come one at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from glm_jax.convert.dimensions import Dimensions, measure
from glm_jax.convert.layouts.chatglm_config import chatglm_config_fields, read_fields
from glm_jax.convert.layouts.chatglm_names import (
    INVERSE_FREQUENCY,
    LM_HEAD,
    OWN_PREFIXES,
    PROJECTIONS,
    file_name,
    inverse_frequency,
    is_fused,
    to_heads,
)
from glm_jax.convert.layouts.huggingface_config import write_config
from glm_jax.convert.layouts.sharded_writer import MAX_SHARD_BYTES, ShardedWriter
from glm_jax.convert.names import find
from glm_jax.convert.weights import SourceMetadata, TensorInfo

_WORDS = "word_embeddings."
# What one layer's part of a prefix is called -> the tensor of a file that holds those of all.
_SPREAD = {own: name for name, own in (OWN_PREFIXES, *PROJECTIONS)}


class ChatGLMDestination:
    """Writes a folder as the published ones are, and config.json.

    Args:
      folder: an empty folder.
      order: the names in the order in which tensors will come.
      tensors: shape and dtype of each.
      metadata: H, what files of the source don't have, and the config.json to bring up to date.
      file_format: one of `FILE_FORMATS`.
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
        file_format: str = "safetensors",
        max_shard_bytes: int = MAX_SHARD_BYTES,
    ) -> None:
        assert metadata.num_attention_heads is not None
        self.order = order
        self._folder, self._heads = folder, metadata.num_attention_heads
        dimensions = measure(tensors, str(folder), lambda _: str(folder), rotary=True)
        self._config = chatglm_config_fields(dimensions, self._heads, metadata.huggingface_config)
        self._repeats_words = LM_HEAD not in metadata.omitted
        stored = stored_tensors(dimensions, tensors, repeats_words=self._repeats_words)
        self._constants: dict[str, np.ndarray] = {}
        if INVERSE_FREQUENCY not in metadata.omitted:
            constant = inverse_frequency(
                dimensions.hidden_size // self._heads,
                two_dimensional=read_fields(self._config)["position_encoding_2d"],
            )
            layers = range(dimensions.num_layers)
            names = [f"transformer.layers.{layer}{INVERSE_FREQUENCY}" for layer in layers]
            self._constants = dict.fromkeys(names, constant)
            stored |= dict.fromkeys(names, TensorInfo(constant.shape, constant.dtype))
        self._parts = LayerParts(dimensions.num_layers)
        self._files = ShardedWriter(folder, stored, file_format, max_shard_bytes)

    def write(self, name: str, tensor: np.ndarray) -> None:
        """Adds one tensor under the name that conversions use.

        Raises:
          RunError: the disk failed.
        """
        if is_fused(name):
            tensor = np.ascontiguousarray(to_heads(tensor, self._heads))
        for stored, complete in self._parts.add(name, tensor):
            self._files.write(stored, complete)
        if self._repeats_words and name.startswith(_WORDS):
            self._files.write(name.replace(_WORDS, LM_HEAD), tensor)

    def finish(self) -> None:
        """Writes what remains: the constants, the index and config.json.

        Raises:
          RunError: the disk failed.
        """
        for name, constant in self._constants.items():
            self._files.write(name, constant)
        self._files.finish()
        write_config(self._folder, self._config)


class LayerParts:
    """Keeps the layers' parts of a prefix until those of all layers are there."""

    def __init__(self, num_layers: int) -> None:
        self._num_layers = num_layers
        self._parts: dict[str, dict[int, np.ndarray]] = {}

    def add(self, name: str, tensor: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
        """The tensors of a file that are complete with this one, under their names there."""
        spread = _spread_name(name)
        if spread is None:
            yield file_name(name), tensor
            return
        found = find(name)
        assert found is not None and found[1] is not None
        parts = self._parts.setdefault(spread, {})
        parts[found[1]] = tensor
        if len(parts) == self._num_layers:
            ordered = [parts[layer] for layer in range(self._num_layers)]
            del self._parts[spread]
            yield spread, np.concatenate(ordered, axis=_layer_axis(spread))


def stored_tensors(
    dimensions: Dimensions, tensors: Mapping[str, TensorInfo], *, repeats_words: bool
) -> dict[str, TensorInfo]:
    """What the files hold besides the constants, the repeated word embedding last."""
    stored: dict[str, TensorInfo] = {}
    for name in dimensions.shapes():
        info, spread = tensors[name], _spread_name(name)
        if spread is None:
            stored[file_name(name)] = info
        else:
            shape, axis = list(info.shape), _layer_axis(spread)
            shape[axis] *= dimensions.num_layers
            stored[spread] = TensorInfo(tuple(shape), info.dtype)
    if repeats_words:
        words = [name for name in tensors if name.startswith(_WORDS)]
        stored |= {name.replace(_WORDS, LM_HEAD): tensors[name] for name in words}
    return stored


def _spread_name(name: str) -> str | None:
    """The tensor of a file that a layer's part of a prefix is in."""
    return next((_SPREAD[own] for own in _SPREAD if name.endswith(f".{own}")), None)


def _layer_axis(spread: str) -> int:
    return 1 if spread == OWN_PREFIXES[0] else 0
