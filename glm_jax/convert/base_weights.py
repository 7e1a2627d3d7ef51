"""Base weights, which a run has trained a part of, or adapters for: where they are and what.

The checkpoints of such a run hold what it trained and nothing else. Their record names the base
weights and has a checksum of every tensor, which depends neither on the kind of their checkpoint
nor on the mesh that they are loaded onto.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
from etils import epath

from glm_jax.checkpoints.record import find_step
from glm_jax.errors import UsageError
from glm_jax.io.paths import is_url, resolve_path

# The field of a checkpoint's record.
BASE = "base"
# What finetuning adds to a network, by the first part of the path; no network has it.
TASK_PARAMETERS = ("classification_head", "prompt_encoder")
# The folders of a trained prefix, and of what projects it.
PREFIX_FOLDERS = ("prefix", "prefix_encoder")
# The matrices of an adapter, which lie next to the kernel that they adapt.
ADAPTER_MATRICES = ("lora_a", "lora_b")


@dataclasses.dataclass(frozen=True)
class BaseWeights:
    """Base weights, as JSON values.

    Attributes:
      path: of their checkpoint, absolute.
      relative_path: the same from the run folder, where both are local; else "".
      num_attention_heads: H.
      adapter_scale: what the product of an adapter's matrices is multiplied by; 0 without adapters.
      checksums: of every parameter by its path in our tree, one for every layer of stacked ones.
    """

    path: str
    relative_path: str
    num_attention_heads: int
    adapter_scale: float
    checksums: Mapping[str, list[int]]

    def find(self, step_folder: epath.Path) -> epath.Path:
        """Where the base weights of a checkpoint are: where they were, or moved with the run.

        Raises:
          UsageError: they are missing.
        """
        run_folder = step_folder.parent.parent
        candidates = [resolve_path(self.path, "the base weights")]
        if self.relative_path and not is_url(run_folder):
            candidates.append(epath.Path(os.path.normpath(run_folder / self.relative_path)))
        for candidate in candidates:
            if candidate.exists():
                return candidate
        raise UsageError(
            f"checkpoint {step_folder} holds only what was trained of the weights at {self.path}, "
            "which do not exist; put them there again"
        )

    def check(self, path: str, layer: int, found: int, checkpoint: str) -> None:
        """Makes sure that a parameter of the base weights is what it was.

        Args:
          path: of the parameter in our tree.
          layer: its number, 0 outside the layers.
          found: the checksum that it has.
          checkpoint: for messages: what was trained.

        Raises:
          UsageError: it has changed.
        """
        recorded = self.checksums.get(path, [])
        if layer >= len(recorded) or recorded[layer] != found:
            raise UsageError(
                f"the weights at {self.path} are not those that {checkpoint} was trained with: "
                f"{path} has changed"
            )


def read_base(record: Mapping[str, Any], step_folder: epath.Path) -> BaseWeights | None:
    """The base weights of a checkpoint, None for one that holds all of its network.

    Raises:
      UsageError: the record is damaged there.
    """
    if record.get(BASE) is None:
        return None
    try:
        return BaseWeights(**record[BASE])
    except TypeError as error:
        raise UsageError(
            f"the record of checkpoint {step_folder} does not describe its base weights: {error}"
        ) from error


def base_path(path: epath.Path) -> epath.Path:
    """What identifies a checkpoint: of a run folder, which may get later ones, the newest in it."""
    try:
        return find_step(path) if path.is_dir() else path
    except UsageError:
        return path


def path_from(run_folder: epath.Path, base: epath.Path) -> str:
    """The base weights' path from a run folder; "" where one of the two is a URL."""
    return "" if is_url(run_folder) or is_url(base) else os.path.relpath(base, run_folder)


def checksum_of(tensor: np.ndarray) -> int:
    """The checksum of one layer of a parameter, in the axes of our tree."""
    words = np.ascontiguousarray(tensor, np.float32).reshape(-1).view(np.uint32)
    total = 0
    for start in range(0, len(words), _CHUNK):
        part = words[start : start + _CHUNK]
        numbers = np.arange(start, start + len(part), dtype=np.uint32)
        total += int(np.sum(part * checksum_weights(numbers), dtype=np.uint32))
    return total % (1 << 32)


_CHUNK = 1 << 20


def checksum_weights(numbers: Any) -> Any:
    """The factors of elements by their numbers: odd, so that any one element changes the sum."""
    return numbers * 2 + 1
