"""Writing a checkpoint of the original code from tensors that come one at a time."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from glm_jax.convert.formats.torch_writer import Announced, TorchWriter
from glm_jax.convert.layouts.rank_files import TRACKERS, rank_file_name
from glm_jax.convert.names import entry_of, original_order, split, splits
from glm_jax.convert.weights import TensorInfo
from glm_jax.errors import RunError, UsageError


class OriginalDestination:
    """Writes a checkpoint as the original's own loop and DeepSpeed's engine both read it.

    Args:
      folder: an empty folder; gets both tracker files and the folder of one tag.
      order: the names in the order in which tensors will come.
      tensors: shape and dtype of each.
      iteration: the training step, which is the tag too; None, where unknown, counts as 0.
      ranks: files to split into.
      num_attention_heads: H, which the ranks share.

    Raises:
      UsageError: the ranks can't share a tensor or the heads.
      RunError: the disk failed.
    """

    def __init__(
        self,
        folder: Path,
        order: list[str],
        tensors: Mapping[str, TensorInfo],
        iteration: int | None,
        ranks: int,
        num_attention_heads: int | None = None,
    ) -> None:
        check_shares(tensors, ranks, num_attention_heads)
        self.order = order
        self._folder, self._tag = folder, str(iteration or 0)
        natives = [entry_of(name).native for name in tensors]
        num_layers = sum(1 for name in tensors if name.endswith(".attention.dense.weight"))
        shares = OrderedDict(
            (name, Announced(name, _share(name, tensors[name], ranks)))
            for name in original_order(natives, num_layers)
        )
        content = _training_state(iteration or 0, ranks) | {"module": shares}
        try:
            (folder / self._tag).mkdir()
        except OSError as error:
            raise RunError(f"{folder} can't be written: {error.strerror}") from error
        self._writers = [
            TorchWriter(folder / self._tag / rank_file_name(rank), content) for rank in range(ranks)
        ]

    def write(self, name: str, tensor: np.ndarray) -> None:
        """Adds one merged tensor, split over the ranks.

        Raises:
          RunError: the disk failed.
        """
        parts = split(entry_of(name), tensor, len(self._writers))
        for writer, part in zip(self._writers, parts, strict=True):
            writer.write(name, part)

    def finish(self) -> None:
        """Completes the files, then names their tag.

        Raises:
          RunError: the disk failed.
        """
        for writer in self._writers:
            writer.finish()
        try:
            for tracker in TRACKERS:
                (self._folder / tracker).write_text(self._tag)
        except OSError as error:
            raise RunError(f"{self._folder} can't be written: {error.strerror}") from error


def check_shares(
    tensors: Mapping[str, TensorInfo], ranks: int, num_attention_heads: int | None
) -> None:
    """Checks that model-parallel ranks can share every tensor and the attention heads.

    Raises:
      UsageError: they can't.
    """
    if ranks < 1:
        raise UsageError(f"the number of model-parallel ranks is {ranks}, but must be at least 1")
    if num_attention_heads is not None and num_attention_heads % ranks:
        raise UsageError(f"{ranks} model-parallel ranks can't share {num_attention_heads} heads")
    for name, info in tensors.items():
        if not splits(entry_of(name), info.shape, ranks):
            raise UsageError(
                f"{ranks} model-parallel ranks can't share {name} of shape {list(info.shape)}"
            )


def _share(name: str, info: TensorInfo, ranks: int) -> TensorInfo:
    axis = entry_of(name).split_axis
    shape = (n // ranks if i == axis else n for i, n in enumerate(info.shape))
    return TensorInfo(tuple(shape), info.dtype)


def _training_state(iteration: int, ranks: int) -> dict[str, Any]:
    """What both loaders read besides the parameters; there is no optimizer state."""
    return {
        "iteration": iteration,
        "optimizer": None,
        "lr_scheduler": None,
        "csr_tensor_module_names": [],
        "skipped_steps": 0,
        "global_steps": iteration,
        "global_samples": 0,
        "dp_world_size": 1,
        "mp_world_size": ranks,
    }
