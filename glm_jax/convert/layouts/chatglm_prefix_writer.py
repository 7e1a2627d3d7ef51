"""Writing a prefix of P-tuning v2 alone, as the published program saves what it has trained."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from glm_jax.convert.dimensions import PREFIX_ENCODER, measure
from glm_jax.convert.layouts.chatglm_config import chatglm_config_fields
from glm_jax.convert.layouts.chatglm_names import OWN_PREFIXES, PROJECTIONS
from glm_jax.convert.layouts.chatglm_prefix import PrefixTensors
from glm_jax.convert.layouts.chatglm_writer import LayerParts, stored_tensors
from glm_jax.convert.layouts.huggingface_config import write_config
from glm_jax.convert.layouts.huggingface_files import HuggingFaceFiles
from glm_jax.convert.layouts.sharded_writer import MAX_SHARD_BYTES, ShardedWriter
from glm_jax.convert.weights import SourceMetadata, TensorInfo, WeightSource
from glm_jax.errors import UsageError

_OF_LAYERS = tuple(f".{own}" for _, own in (OWN_PREFIXES, *PROJECTIONS))


class PrefixPart:
    """The prefix of a network with one, as a source.

    Attributes:
      tensors: those of the prefix.
      network: those of the complete network.
    """

    def __init__(self, source: WeightSource) -> None:
        """Takes the prefix of an open source.

        Raises:
          UsageError: it has none.
        """
        self._source, self.path, self.kind = source, source.path, source.kind
        self.extra, self.metadata = source.extra, source.metadata
        self.network = source.tensors
        self.tensors: Mapping[str, TensorInfo] = {
            name: info for name, info in source.tensors.items() if is_of_prefix(name)
        }
        if not self.tensors:
            raise UsageError(f"{source.path} has no prefix of P-tuning v2 to write")

    def __enter__(self) -> PrefixPart:
        return self

    def __exit__(self, *_error: object) -> None:
        self._source.__exit__()

    def where(self, name: str) -> str:
        """The file that holds a tensor."""
        return self._source.where(name)

    def read(self, name: str) -> np.ndarray:
        """One tensor in its stored dtype.

        Raises:
          UsageError: the bytes are damaged, or a number isn't finite.
        """
        return self._source.read(name)


class PrefixDestination:
    """Writes a folder with the prefix and the config.json of the network with it.

    Args:
      folder: an empty folder.
      order: the names in the order in which the prefix's tensors will come.
      network: shape and dtype of every tensor of the network with the prefix.
      metadata: H, and the config.json to bring up to date.
      file_format: one of `FILE_FORMATS`.

    Raises:
      RunError: the disk failed.
    """

    def __init__(
        self,
        folder: Path,
        order: list[str],
        network: Mapping[str, TensorInfo],
        metadata: SourceMetadata,
        *,
        file_format: str,
    ) -> None:
        assert metadata.num_attention_heads is not None
        self.order, self._folder = order, folder
        dimensions = measure(network, str(folder), lambda _: str(folder), rotary=True)
        heads, fields = metadata.num_attention_heads, metadata.huggingface_config
        self._config = chatglm_config_fields(dimensions, heads, fields)
        complete = stored_tensors(dimensions, network, repeats_words=False)
        stored = {name: complete[name] for name in complete if name.startswith(PREFIX_ENCODER)}
        self._parts = LayerParts(dimensions.num_layers)
        self._files = ShardedWriter(folder, stored, file_format, MAX_SHARD_BYTES)

    def write(self, name: str, tensor: np.ndarray) -> None:
        """Adds one tensor under the name that conversions use.

        Raises:
          RunError: the disk failed.
        """
        for stored, complete in self._parts.add(name, tensor):
            self._files.write(stored, complete)

    def finish(self) -> None:
        """Writes what remains: the index and config.json.

        Raises:
          RunError: the disk failed.
        """
        self._files.finish()
        write_config(self._folder, self._config)


class PrefixFolder:
    """A folder with a prefix alone, as a source.

    Attributes:
      tensors: those of the prefix.
    """

    kind = "huggingface"
    extra: tuple[str, ...] = ()
    metadata = SourceMetadata()

    def __init__(self, path: Path, num_layers: int) -> None:
        """Opens the prefix of a network with `num_layers` layers.

        Raises:
          UsageError: its shapes are not those of so many layers.
        """
        self.path, self._files = path, HuggingFaceFiles(path)
        self._prefix = PrefixTensors(self._files, num_layers)
        self.tensors: Mapping[str, TensorInfo] = self._prefix.tensors
        self.where, self.read = self._prefix.where, self._prefix.read

    def __enter__(self) -> PrefixFolder:
        return self

    def __exit__(self, *_error: object) -> None:
        self._files.close()


def is_of_prefix(name: str) -> bool:
    """Whether a tensor, as conversions call it, belongs to a prefix."""
    return name.startswith(PREFIX_ENCODER) or name.endswith(_OF_LAYERS)
