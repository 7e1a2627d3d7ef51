"""Hugging Face folders of the `glm-*` family: config.json, and torch files or safetensors."""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np

from glm_jax.convert.dimensions import WORD_EMBEDDING, measure
from glm_jax.convert.layouts.head_tensors import find_head
from glm_jax.convert.layouts.huggingface_config import CONFIG_FILE, check_config
from glm_jax.convert.layouts.huggingface_files import HuggingFaceFiles
from glm_jax.convert.layouts.state_dict import HUGGINGFACE_PREFIX, find_parameters, name_some
from glm_jax.convert.tensors import require_finite
from glm_jax.convert.weights import SourceMetadata
from glm_jax.errors import UsageError


class HuggingFaceSource:
    """A Hugging Face folder, or one file with all of its weights.

    What GLM doesn't have is no reason for a refusal here: published folders have heads.

    Attributes:
      folder: where config.json and the other side files are.
      extra: the names of what the files hold that GLM doesn't have.
      head: the names of those that are a classifier's head, see `find_head`.

    Raises:
      UsageError: a file is missing, damaged or not GLM's, or config.json contradicts the tensors.
    """

    kind = "huggingface"

    def __init__(self, path: str | Path, num_attention_heads: int | None = None) -> None:
        self._files = files = HuggingFaceFiles(path)
        self.path, self.folder = files.path, files.folder
        with contextlib.ExitStack() as stack:
            stack.callback(files.close)
            found = find_parameters(files.tensors, files.where)
            self._names = found.names
            self.extra = (*found.extra, *files.others)
            self.head = find_head(found.extra)
            if WORD_EMBEDDING not in found.names and self.extra:
                raise UsageError(
                    f"{self.path} has no tensor {WORD_EMBEDDING}, but {len(self.extra)} which GLM "
                    f"doesn't have: {name_some(self.extra)}"
                )
            plain = {name: files.tensors[full] for name, full in self._names.items()}
            dimensions = measure(plain, str(self.path), self.where)
            self.tensors = {name: plain[name] for name in dimensions.shapes()}
            config = files.config
            heads = check_config(self.folder / CONFIG_FILE, config or {}, dimensions)
            prefixed = f".{HUGGINGFACE_PREFIX}" in f".{self._names[WORD_EMBEDDING]}"
            self.metadata = SourceMetadata(
                num_attention_heads=num_attention_heads if heads is None else heads,
                name_prefix=HUGGINGFACE_PREFIX if prefixed else "",
                huggingface_config=config,
            )
            self._close = stack.pop_all().close

    def __enter__(self) -> HuggingFaceSource:
        return self

    def __exit__(self, *_error: object) -> None:
        self._close()

    def where(self, name: str) -> str:
        """The file that holds a tensor."""
        return self._files.where(self._names[name])

    def read(self, name: str) -> np.ndarray:
        """One tensor in its stored dtype, as a C-contiguous array that the caller owns.

        Raises:
          UsageError: the bytes are damaged, or a number isn't finite.
        """
        tensor = self._files.read(self._names[name])
        require_finite(tensor, name, self.where(name))
        return tensor

    def read_head(self) -> dict[str, np.ndarray]:
        """The tensors of a classifier's head as our tree has them, by their paths; float32.

        Raises:
          UsageError: the bytes are damaged, or a number isn't finite.
        """
        read = {}
        for path, name in self.head.items():
            tensor = self._files.read(name).astype(np.float32)
            require_finite(tensor, name, self._files.where(name))
            read[path] = tensor.T
        return read
