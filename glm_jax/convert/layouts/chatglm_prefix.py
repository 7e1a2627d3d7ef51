"""The prefixes of P-tuning v2 in ChatGLM-6B's files: one tensor for all layers, or three."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from glm_jax.convert.dimensions import PREFIX_EMBEDDING, PREFIX_ENCODER, measure
from glm_jax.convert.layouts.chatglm_names import OWN_PREFIXES, PROJECTIONS, plain_name
from glm_jax.convert.layouts.huggingface_files import HuggingFaceFiles
from glm_jax.convert.names import find
from glm_jax.convert.tensors import require_finite
from glm_jax.convert.weights import TensorInfo, WeightSource
from glm_jax.errors import UsageError


class PrefixTensors:
    """The tensors of a prefix in open files, by the names that conversions use.

    Attributes:
      tensors: those of each layer, and those that layers share.
    """

    def __init__(self, files: HuggingFaceFiles, num_layers: int) -> None:
        """Finds them.

        Raises:
          UsageError: their shapes are not those of so many layers.
        """
        self._files, self._num_layers = files, num_layers
        found = {plain_name(name): name for name in files.tensors}
        self._stored = {
            name: stored
            for name, stored in found.items()
            if name is not None and name.startswith(PREFIX_ENCODER)
        }
        projected = any(name in self._stored for name, _ in PROJECTIONS)
        spread = dict(PROJECTIONS if projected else (OWN_PREFIXES,))
        self._spread: dict[str, tuple[str, int]] = {}
        self.tensors: dict[str, TensorInfo] = {}
        for name, stored in self._stored.items():
            info = files.tensors[stored]
            if name not in spread:
                self.tensors[name] = info
                continue
            shape = self._shape_of_layer(stored, info.shape, axis=self._axis(name))
            for layer in range(num_layers):
                own = f"transformer.layers.{layer}.{spread[name]}"
                self._spread[own] = (name, layer)
                self.tensors[own] = TensorInfo(shape, info.dtype)
        self._kept: tuple[str, np.ndarray] | None = None

    def where(self, name: str) -> str:
        """The file that holds a tensor."""
        return self._files.where(self._stored[self._spread.get(name, (name, 0))[0]])

    def read(self, name: str) -> np.ndarray:
        """One tensor in its stored dtype, as a C-contiguous array that the caller owns."""
        if name not in self._spread:
            return self._files.read(self._stored[name])
        name_of_all, layer = self._spread[name]
        if self._kept is None or self._kept[0] != name_of_all:
            self._kept = None  # before the next is read, so that there are never two
            self._kept = name_of_all, self._files.read(self._stored[name_of_all])
        parts = np.split(self._kept[1], self._num_layers, axis=self._axis(name_of_all))
        return parts[layer].copy()

    def _axis(self, name: str) -> int:
        """The axis along which a tensor has layers."""
        return 1 if name == PREFIX_EMBEDDING else 0

    def _shape_of_layer(self, stored: str, shape: tuple[int, ...], axis: int) -> tuple[int, ...]:
        if len(shape) <= axis or shape[axis] % self._num_layers:
            raise UsageError(
                f"{stored} in {self._files.where(stored)} has shape {list(shape)}, which the "
                f"{self._num_layers} layers of the network can't share"
            )
        return (*shape[:axis], shape[axis] // self._num_layers, *shape[axis + 1 :])


IS_PREFIX_ONLY = (
    "holds a prefix of P-tuning v2, and not the network that it was trained for: give that with "
    "--base (base= in Python)"
)


def is_prefix_only(names: Mapping[str, object]) -> bool:
    """Whether files with these stored tensors hold a prefix and no network."""
    plain = [plain_name(name) or "" for name in names]
    return bool(plain) and all(name.startswith(PREFIX_ENCODER) for name in plain)


class PrefixedSource:
    """A base network with the prefix of a folder of P-tuning v2.

    Attributes:
      extra: the names of what the folder holds that is no prefix, and of what the base has.
    """

    kind = "huggingface"

    def __init__(self, path: Path, base: WeightSource) -> None:
        """Opens the folder over its opened base, which is closed with it.

        Raises:
          UsageError: the folder has no prefix, the base has one, or the two don't fit.
        """
        self._files, self._base = HuggingFaceFiles(path), base
        self.path, self.folder = self._files.path, self._files.folder
        layers = {found[1] for name in base.tensors if (found := find(name))} - {None}
        self._prefix = PrefixTensors(self._files, len(layers))
        if not self._prefix.tensors:
            raise UsageError(f"{path} has no prefix of P-tuning v2 to lay over {base.path}")
        if common := self._prefix.tensors.keys() & base.tensors.keys():
            raise UsageError(f"the base {base.path} has a prefix itself: {min(common)}")
        plain = dict(base.tensors) | self._prefix.tensors
        dimensions = measure(plain, f"{path} over {base.path}", self.where, rotary=True)
        if not dimensions.rotary:
            raise UsageError(f"the base {base.path} of {path} is no ChatGLM network")
        self.tensors: Mapping[str, TensorInfo] = {name: plain[name] for name in dimensions.shapes()}
        self.extra: tuple[str, ...] = base.extra
        fields = dict(base.metadata.huggingface_config or {})
        fields |= {"pre_seq_len": dimensions.prefix_tokens}
        fields |= {"prefix_projection": dimensions.prefix_projection}
        self.metadata = dataclasses.replace(base.metadata, huggingface_config=fields)

    def __enter__(self) -> PrefixedSource:
        return self

    def __exit__(self, *_error: object) -> None:
        self._files.close()
        self._base.__exit__()

    def where(self, name: str) -> str:
        """The file that holds a tensor."""
        own = name in self._prefix.tensors
        return self._prefix.where(name) if own else self._base.where(name)

    def read(self, name: str) -> np.ndarray:
        """One tensor in its stored dtype.

        Raises:
          UsageError: the bytes are damaged, or a number isn't finite.
        """
        if name not in self._prefix.tensors:
            return self._base.read(name)
        tensor = self._prefix.read(name)
        require_finite(tensor, name, self.where(name))
        return tensor
