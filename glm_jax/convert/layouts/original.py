"""Checkpoints of the original code: one `torch.save` file for each model-parallel rank."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from glm_jax.convert.dimensions import measure
from glm_jax.convert.formats.torch_reader import TorchFile
from glm_jax.convert.formats.torch_tensors import StoredTensor
from glm_jax.convert.layouts.rank_files import check_saved_name, find_rank_files
from glm_jax.convert.layouts.state_dict import find_parameters, read_state_dict, refuse_extra
from glm_jax.convert.names import entry_of, merge, merged_shape
from glm_jax.convert.tensors import require_finite, same_bits
from glm_jax.convert.weights import SourceMetadata, TensorInfo
from glm_jax.errors import UsageError

# Its shape [D, D / ranks] shows how many ranks there are.
_SHARED = "transformer.layers.0.attention.dense.weight"


class OriginalSource:
    """A checkpoint of the original code, its ranks merged while tensors are read.

    The path is a folder with a tracker file, the folder of one tag, or one file.

    Attributes:
      extra: what the files hold that GLM doesn't have, in the state dict's names.

    Raises:
      UsageError: a file is damaged, missing, swapped, of another checkpoint, or not GLM's; or there
        are extra tensors, and they are not to be ignored.
    """

    kind = "original"

    def __init__(
        self,
        path: str | Path,
        num_attention_heads: int | None = None,
        *,
        ignore_extra: bool = False,
    ) -> None:
        self.path = Path(path)
        self._paths = find_rank_files(self.path)
        with contextlib.ExitStack() as stack:
            self._files: list[TorchFile] = []
            for file in self._paths:
                self._files.append(TorchFile(file))
                stack.callback(self._files[-1].close)
                check_saved_name(file, self._files[-1].saved_name)
            self._states, extra = [], {}
            for file in self._files:
                state, others = _read_parameters(file)
                self._states.append(state)
                extra |= dict.fromkeys(others, str(file.path))
            self.extra = tuple(extra)
            if not ignore_extra:
                refuse_extra(extra, self.path)
            self._check_ranks()
            merged = self._merged()
            dimensions = measure(merged, str(self.path), self.where)
            self.tensors = {name: merged[name] for name in dimensions.shapes()}
            self.metadata = SourceMetadata(num_attention_heads, self._iteration())
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
        """One merged tensor in its stored dtype, as a C-contiguous array that the caller owns.

        Raises:
          UsageError: the bytes are damaged, a number isn't finite, or ranks that should hold the
            same tensor don't.
        """
        entry = entry_of(name)
        parts = self._parts(name)
        merged = merge(entry, parts, len(self._files))
        if entry.split_axis is None:
            # The first rank's was taken; the others must be its copies.
            for file, part in zip(self._paths[1:], parts, strict=True):
                if not same_bits(merged, part):
                    raise UsageError(
                        f"{name} in {file} is not the same as in {self._paths[0].name}: these "
                        "ranks belong to different checkpoints"
                    )
        return merged

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
                raise UsageError(f"{lacking} has no tensor {name}, but {having.name} has")
            for name, tensor in state.items():
                if tensor.info != first[name].info:
                    raise UsageError(
                        f"{name} in {file.path} has {_words(tensor)}, but {_words(first[name])} in "
                        f"{self._paths[0].name}"
                    )
            recorded = _recorded(file, "mp_world_size")
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
            shape = merged_shape(entry_of(name), tensor.shape, len(self._files))
            merged[name] = TensorInfo(shape, tensor.info.dtype)
        return merged

    def _iteration(self) -> int | None:
        iterations = [
            _recorded(file, "iteration", _recorded(file, "global_steps")) for file in self._files
        ]
        for path, iteration in zip(self._paths, iterations, strict=True):
            if iteration != iterations[0]:
                raise UsageError(
                    f"{path} is of iteration {iteration}, but {self._paths[0].name} of "
                    f"{iterations[0]}: these ranks belong to different checkpoints"
                )
        return iterations[0]


def _read_parameters(file: TorchFile) -> tuple[dict[str, StoredTensor], list[str]]:
    """The tensors of a file by their original names, and what else its state dict holds."""
    state, others = read_state_dict(file)
    found = find_parameters(state, lambda _: str(file.path))
    return {plain: state[name] for plain, name in found.names.items()}, [*found.extra, *others]


def _recorded(file: TorchFile, key: str, missing: int | None = None) -> int | None:
    value: Any = file.content.get(key) if isinstance(file.content, Mapping) else None
    return value if isinstance(value, int) and not isinstance(value, bool) else missing


def _words(tensor: StoredTensor) -> str:
    return f"shape {list(tensor.shape)} and dtype {tensor.info.dtype}"


def _wrong_count(path: Path, reason: str, count: int) -> UsageError:
    files = "file is" if count == 1 else "files are"
    return UsageError(f"{path} {reason}, but {count} {files} there")
