"""Folders of ChatGLM-6B: the published ones, quantized ones, and those of P-tuning over a base."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from glm_jax.convert.dimensions import PREFIX_ENCODER, measure
from glm_jax.convert.layouts.chatglm_config import check_chatglm_config, read_fields
from glm_jax.convert.layouts.chatglm_names import (
    INVERSE_FREQUENCY,
    LM_HEAD,
    is_fused,
    is_repeated,
    plain_name,
    to_thirds,
)
from glm_jax.convert.layouts.chatglm_prefix import (
    IS_PREFIX_ONLY,
    PrefixTensors,
    is_prefix_only,
)
from glm_jax.convert.layouts.huggingface_config import CONFIG_FILE
from glm_jax.convert.layouts.huggingface_files import HuggingFaceFiles
from glm_jax.convert.layouts.state_dict import refuse_extra, shown
from glm_jax.convert.names import find
from glm_jax.convert.tensors import require_finite
from glm_jax.convert.weights import SourceMetadata, TensorInfo
from glm_jax.errors import UsageError


class ChatGLMSource:
    """A complete network: a Hugging Face folder, or one file with all of its weights.

    Attributes:
      folder: where config.json and the other side files are.
      extra: the names of what the files hold that ChatGLM doesn't have.

    Raises:
      UsageError: a file is missing, damaged or not ChatGLM's, or config.json contradicts the
        tensors; or there are extra tensors, and they are not to be ignored.
    """

    kind = "huggingface"

    def __init__(
        self,
        path: str | Path,
        num_attention_heads: int | None = None,
        *,
        ignore_extra: bool = False,
    ) -> None:
        self._files = files = HuggingFaceFiles(path)
        self.path, self.folder = files.path, files.folder
        with contextlib.ExitStack() as stack:
            stack.callback(files.close)
            if is_prefix_only(files.tensors):
                raise UsageError(f"{self.path} {IS_PREFIX_ONLY}")
            self._names, self.extra = _sort(files, ignore_extra=ignore_extra)
            repeated = [name for name in self._names if is_repeated(name)]
            self._prefix = PrefixTensors(files, _num_layers(self._names))
            plain = {
                name: files.tensors[stored]
                for name, stored in self._names.items()
                if name not in repeated and not name.startswith(PREFIX_ENCODER)
            }
            plain |= self._prefix.tensors
            dimensions = measure(plain, str(self.path), self.where, rotary=True)
            self.tensors: Mapping[str, TensorInfo] = {
                name: plain[name] for name in dimensions.shapes()
            }
            config = files.config or {}
            check_chatglm_config(self.folder / CONFIG_FILE, config, dimensions)
            heads = num_attention_heads or read_fields(config)["num_attention_heads"]
            if dimensions.hidden_size % heads:
                raise UsageError(
                    f"{self.path} has {heads} attention heads by its {CONFIG_FILE}, which do not "
                    f"divide the tensors' hidden size of {dimensions.hidden_size}"
                )
            self.metadata = SourceMetadata(
                num_attention_heads=heads,
                huggingface_config=config,
                omitted=tuple(
                    name
                    for name in (LM_HEAD, INVERSE_FREQUENCY)
                    if not any(name in found for found in repeated)
                ),
            )
            self._close = stack.pop_all().close

    def __enter__(self) -> ChatGLMSource:
        return self

    def __exit__(self, *_error: object) -> None:
        self._close()

    def where(self, name: str) -> str:
        """The file that holds a tensor."""
        if name in self._prefix.tensors:
            return self._prefix.where(name)
        return self._files.where(self._names[name])

    def read(self, name: str) -> np.ndarray:
        """One tensor in its stored dtype, as a C-contiguous array that the caller owns.

        Raises:
          UsageError: the bytes are damaged, or a number isn't finite.
        """
        if name in self._prefix.tensors:
            tensor = self._prefix.read(name)
        else:
            tensor = self._files.read(self._names[name])
        require_finite(tensor, name, self.where(name))
        if not is_fused(name):
            return tensor
        heads = self.metadata.num_attention_heads
        assert heads is not None
        return to_thirds(tensor, heads)


def _sort(files: HuggingFaceFiles, *, ignore_extra: bool) -> tuple[dict[str, str], tuple[str, ...]]:
    """The stored name of every tensor by its plain one, and the names of what is extra.

    Raises:
      UsageError: two tensors are the same parameter, or there are extra ones.
    """
    names: dict[str, str] = {}
    extra: dict[str, str] = {}
    for stored in files.tensors:
        plain = plain_name(stored)
        if plain is None:
            extra[stored] = files.where(stored)
        elif plain in names:
            raise UsageError(
                f"{shown(names[plain])} in {files.where(names[plain])} and {shown(stored)} in "
                f"{files.where(stored)} are both {plain}: only one of them can be converted"
            )
        else:
            names[plain] = stored
    if not ignore_extra:
        refuse_extra(extra | files.others, files.path)
    return names, (*extra, *files.others)


def _num_layers(names: Mapping[str, str]) -> int:
    layers = [found[1] for found in map(find, names) if found and found[1] is not None]
    return max(layers, default=0) + 1
