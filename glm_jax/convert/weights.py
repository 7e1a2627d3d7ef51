"""What every checkpoint looks like to a conversion: named tensors, read one at a time.

The names and shapes are the original's, merged over model-parallel ranks and without a prefix
(`transformer.layers.0.attention.dense.weight`), whatever format the checkpoint has.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from etils import epath


@dataclasses.dataclass(frozen=True)
class TensorInfo:
    """Shape and stored dtype of one tensor."""

    shape: tuple[int, ...]
    dtype: np.dtype

    @property
    def nbytes(self) -> int:
        """Bytes of the tensor."""
        size = self.dtype.itemsize
        for length in self.shape:
            size *= length
        return size


@dataclasses.dataclass(frozen=True)
class SourceMetadata:
    """What a checkpoint says of its weights besides the tensors; JSON values, so that it is kept.

    Attributes:
      num_attention_heads: H, which the tensors don't show; None where it isn't recorded.
      iteration: the training step, None where it isn't recorded.
      name_prefix: the prefix of Hugging Face's names, "glm." or nothing.
      huggingface_config: the folder's config.json, kept to be written back.
      omitted: what ChatGLM's files may have, but these don't: the repeated word embedding
        ("lm_head.") or the constants of rotary positions (".attention.rotary_emb.inv_freq").
    """

    num_attention_heads: int | None = None
    iteration: int | None = None
    name_prefix: str = ""
    huggingface_config: Mapping[str, Any] | None = None
    omitted: tuple[str, ...] = ()


@runtime_checkable
class WeightSource(Protocol):
    """An open checkpoint; a context manager that closes its files.

    Attributes:
      kind: "original", "huggingface" or "native".
      extra: the names of what its files hold that GLM doesn't have.
    """

    kind: str
    extra: tuple[str, ...]
    metadata: SourceMetadata

    @property
    def path(self) -> Path | epath.Path:
        """What the user named, as an absolute path or URL."""
        ...

    @property
    def tensors(self) -> Mapping[str, TensorInfo]:
        """Every tensor by its original name, in the order of the original's state dict."""
        ...

    def read(self, name: str) -> np.ndarray:
        """One merged tensor in its stored dtype, as a C-contiguous array that the caller owns.

        Raises:
          UsageError: the bytes are damaged, or not what the checkpoint's description says.
        """
        ...

    def where(self, name: str) -> str:
        """The file or files that hold a tensor, for messages."""
        ...

    def __enter__(self) -> WeightSource: ...

    def __exit__(self, *_error: object) -> None: ...


@runtime_checkable
class WeightDestination(Protocol):
    """A checkpoint being written into an empty folder.

    Tensors come in the order of `order`, each once; `finish` then makes the folder complete.
    """

    order: list[str]

    def write(self, name: str, tensor: np.ndarray) -> None:
        """Adds one merged tensor under its original name."""
        ...

    def finish(self) -> None:
        """Writes what remains: indexes, headers, tracker files."""
        ...
