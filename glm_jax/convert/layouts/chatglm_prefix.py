"""The prefixes of P-tuning v2 in ChatGLM-6B's files: one tensor for all layers, or three."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from glm_jax.convert.dimensions import PREFIX_EMBEDDING, PREFIX_ENCODER
from glm_jax.convert.layouts.chatglm_names import OWN_PREFIXES, PROJECTIONS, plain_name
from glm_jax.convert.layouts.huggingface_files import HuggingFaceFiles
from glm_jax.convert.weights import TensorInfo
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
        whole, layer = self._spread[name]
        if self._kept is None or self._kept[0] != whole:
            self._kept = None  # before the next is read, so that there are never two
            self._kept = whole, self._files.read(self._stored[whole])
        parts = np.split(self._kept[1], self._num_layers, axis=self._axis(whole))
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


def is_prefix_only(names: Mapping[str, object]) -> bool:
    """Whether files with these stored tensors hold a prefix and no network."""
    plain = [plain_name(name) or "" for name in names]
    return bool(plain) and all(name.startswith(PREFIX_ENCODER) for name in plain)
