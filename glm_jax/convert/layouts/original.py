"""Checkpoints of the original code: one `torch.save` file for each model-parallel rank."""

from __future__ import annotations

import contextlib
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from glm_jax.convert.dimensions import measure
from glm_jax.convert.formats.torch_reader import TorchFile, tensors_in
from glm_jax.convert.formats.torch_tensors import StoredTensor
from glm_jax.convert.formats.torch_writer import Announced, TorchWriter
from glm_jax.convert.layouts.rank_files import (
    TRACKERS,
    check_saved_name,
    find_rank_files,
    rank_file_name,
)
from glm_jax.convert.names import (
    Entry,
    find,
    merge,
    merged_shape,
    original_order,
    plain_names,
    split,
    splits,
)
from glm_jax.convert.tensors import require_finite, same_bits
from glm_jax.convert.weights import SourceMetadata, TensorInfo
from glm_jax.errors import RunError, UsageError

# What wrappers of the original's model put before its names.
_PREFIXES = ("module.", "model.")
# Its shape [D, D / ranks] shows how many ranks there are.
_SHARED = "transformer.layers.0.attention.dense.weight"


class OriginalSource:
    """A checkpoint of the original code, its ranks merged while tensors are read.

    The path is a folder with a tracker file, the folder of one tag, or one file.

    Raises:
      UsageError: a file is damaged, missing, swapped, of another checkpoint, or not GLM's.
    """

    kind = "original"

    def __init__(self, path: str | Path, num_attention_heads: int | None = None) -> None:
        self.path = Path(path)
        self._paths = find_rank_files(self.path)
        with contextlib.ExitStack() as stack:
            self._files: list[TorchFile] = []
            for file in self._paths:
                self._files.append(TorchFile(file))
                stack.callback(self._files[-1].close)
                check_saved_name(file, self._files[-1].saved_name)
            self._states = [_state_dict(file) for file in self._files]
            self._check_ranks()
            merged = self._merged()
            dimensions = measure(merged, str(self.path), self.where)
            self.tensors = {name: merged[name] for name in dimensions.shapes()}
            self.facts = SourceMetadata(num_attention_heads, self._iteration())
            self._close = stack.pop_all().close

    def __enter__(self) -> OriginalSource:
        return self

    def __exit__(self, *_error: object) -> None:
        self._close()

    def where(self, name: str) -> str:
        """The first file of those that hold a tensor, with the last one's name."""
        first, last = self._paths[0], self._paths[-1]
        return str(first) if first == last else f"{first} to {last.name}"

    def read(self, name: str) -> np.ndarray:
        """One whole tensor in its stored dtype, as a C-contiguous array that the caller owns.

        Raises:
          UsageError: the bytes are damaged, a number isn't finite, or ranks that should hold the
            same tensor don't.
        """
        entry = _entry(name)
        parts = self._parts(name)
        whole = merge(entry, parts, len(self._files))
        if entry.split_axis is None:
            # The first rank's was taken; the others must be its copies.
            for file, part in zip(self._paths[1:], parts, strict=True):
                if not same_bits(whole, part):
                    raise UsageError(
                        f"{name} in {file} is not the same as in {self._paths[0].name}: these "
                        "ranks belong to different checkpoints"
                    )
        return whole

    def _parts(self, name: str) -> Iterator[np.ndarray]:
        for file, state in zip(self._files, self._states, strict=True):
            part = file.read(state[name])
            require_finite(part, name, str(file.path))
            yield part

    def _check_ranks(self) -> None:
        """Checks that there are as many files as ranks and that they hold the same tensors."""
        count, first = len(self._files), self._states[0]
        for file, state in zip(self._files, self._states, strict=True):
            for name in sorted(state.keys() ^ first.keys()):
                lacking, having = self._paths[0], file.path
                if name in first:
                    lacking, having = having, lacking
                raise UsageError(f"{lacking} has no tensor {name[:120]!r}, but {having.name} has")
            for name, tensor in state.items():
                if tensor.info != first[name].info:
                    raise UsageError(
                        f"{name} in {file.path} has {_words(tensor)}, but {_words(first[name])} in "
                        f"{self._paths[0].name}"
                    )
            recorded = _entry_of(file, "mp_world_size")
            if recorded not in (None, count):
                raise _wrong_count(file.path, f"was saved by {recorded} ranks", count)
        shape = first[_SHARED].shape if _SHARED in first else ()
        if len(shape) == 2 and shape[1] and shape[0] % shape[1] == 0:
            ranks = shape[0] // shape[1]
            if ranks != count:
                reason = f"has {_SHARED} of shape {list(shape)}, as {ranks} ranks have it"
                raise _wrong_count(self._paths[0], reason, count)

    def _merged(self) -> dict[str, TensorInfo]:
        merged = {}
        for name, tensor in self._states[0].items():
            found = find(name)
            if found is None:
                raise UsageError(
                    f"{self._paths[0]} has a tensor {name[:120]!r}, which GLM doesn't have"
                )
            shape = merged_shape(found[0], tensor.shape, len(self._files))
            merged[name] = TensorInfo(shape, tensor.info.dtype)
        return merged

    def _iteration(self) -> int | None:
        iterations = [
            _entry_of(file, "iteration", _entry_of(file, "global_steps")) for file in self._files
        ]
        for path, iteration in zip(self._paths, iterations, strict=True):
            if iteration != iterations[0]:
                raise UsageError(
                    f"{path} is of iteration {iteration}, but {self._paths[0].name} of "
                    f"{iterations[0]}: these ranks belong to different checkpoints"
                )
        return iterations[0]


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
        natives = [_entry(name).native for name in tensors]
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
        """Adds one whole tensor, shared by the ranks.

        Raises:
          RunError: the disk failed.
        """
        parts = split(_entry(name), tensor, len(self._writers))
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
        if not splits(_entry(name), info.shape, ranks):
            raise UsageError(
                f"{ranks} model-parallel ranks can't share {name} of shape {list(info.shape)}"
            )


def _share(name: str, info: TensorInfo, ranks: int) -> TensorInfo:
    axis = _entry(name).split_axis
    shape = (n // ranks if place == axis else n for place, n in enumerate(info.shape))
    return TensorInfo(tuple(shape), info.dtype)


def _training_state(iteration: int, ranks: int) -> dict[str, Any]:
    """What both loaders look up beside the parameters; there is no optimizer state."""
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


def _state_dict(file: TorchFile) -> dict[str, StoredTensor]:
    state = tensors_in(file)
    return {plain: state[name] for plain, name in plain_names(state, _PREFIXES).items()}


def _entry(name: str) -> Entry:
    found = find(name)
    if found is None:
        raise KeyError(name)
    return found[0]


def _entry_of(file: TorchFile, key: str, missing: int | None = None) -> int | None:
    value: Any = file.content.get(key) if isinstance(file.content, Mapping) else None
    return value if isinstance(value, int) and not isinstance(value, bool) else missing


def _words(tensor: StoredTensor) -> str:
    return f"shape {list(tensor.shape)} and dtype {tensor.info.dtype}"


def _wrong_count(path: Path, reason: str, count: int) -> UsageError:
    files = "file is" if count == 1 else "files are"
    return UsageError(f"{path} {reason}, but {count} {files} there")
