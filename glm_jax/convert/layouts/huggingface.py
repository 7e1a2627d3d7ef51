"""Hugging Face folders of the `glm-*` family: config.json, and torch files or safetensors."""

from __future__ import annotations

import contextlib
import functools
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from glm_jax.convert.dimensions import WORD_EMBEDDING, Dimensions, find_heads, measure
from glm_jax.convert.formats.safetensors import SafetensorsFile, SafetensorsWriter
from glm_jax.convert.formats.torch_reader import TorchFile, tensors_in
from glm_jax.convert.layouts.huggingface_config import check_config, config_fields, read_json
from glm_jax.convert.names import plain_names
from glm_jax.convert.tensors import require_finite
from glm_jax.convert.weights import SourceMetadata, TensorInfo
from glm_jax.errors import RunError, UsageError

# In the order in which the transformers library looks for them.
_WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")
_PREFIX = "glm."
_MAX_SHARD_BYTES = 5_000_000_000

_Reader = Callable[[], np.ndarray]


class HuggingFaceSource:
    """A Hugging Face folder.

    Raises:
      UsageError: a file is missing, damaged or not GLM's, or config.json contradicts the tensors.
    """

    kind = "huggingface"

    def __init__(self, path: str | Path, num_attention_heads: int | None = None) -> None:
        self.path = Path(path)
        config = read_json(self.path / "config.json")
        with contextlib.ExitStack() as stack:
            self._files: dict[str, Path] = {}
            self._readers: dict[str, _Reader] = {}
            infos: dict[str, TensorInfo] = {}
            for file, names in find_shards(self.path).items():
                found = _open(file, stack)
                _check_index(file, names, found)
                for name, (info, reader) in found.items():
                    if name in infos:
                        raise UsageError(f"{name[:120]!r} is in {self._files[name]} and in {file}")
                    infos[name], self._files[name], self._readers[name] = info, file, reader
            self._names = plain_names(infos, [_PREFIX])
            plain = {name: infos[full] for name, full in self._names.items()}
            dimensions = measure(plain, str(self.path), self.where)
            self.tensors = {name: plain[name] for name in dimensions.shapes()}
            heads = check_config(self.path / "config.json", config, dimensions)
            self.facts = SourceMetadata(
                num_attention_heads=num_attention_heads if heads is None else heads,
                name_prefix=self._names[WORD_EMBEDDING].removesuffix(WORD_EMBEDDING),
                huggingface_config=config,
            )
            self._close = stack.pop_all().close

    def __enter__(self) -> HuggingFaceSource:
        return self

    def __exit__(self, *_error: object) -> None:
        self._close()

    def where(self, name: str) -> str:
        """The file that holds a tensor."""
        return str(self._files[self._names[name]])

    def read(self, name: str) -> np.ndarray:
        """One tensor in its stored dtype, as a C-contiguous array that the caller owns.

        Raises:
          UsageError: the bytes are damaged, or a number isn't finite.
        """
        tensor = self._readers[self._names[name]]()
        require_finite(tensor, name, self.where(name))
        return tensor


def find_shards(folder: Path) -> dict[Path, set[str] | None]:
    """The files with weights, each with the names that the folder's index places there, if any.

    Raises:
      UsageError: there is no such file, the index is unusable, or a file that it names is missing.
    """
    for name in _WEIGHT_FILES:
        if (folder / name).is_file():
            return {folder / name: None}
        index = folder / f"{name}.index.json"
        if index.is_file():
            return _indexed(index)
    raise UsageError(
        f"{folder} has no weights: expected {' or '.join(_WEIGHT_FILES)}, or one's index"
    )


def _indexed(index: Path) -> dict[Path, set[str] | None]:
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise UsageError(f"{index} has no 'weight_map' from tensors to files")
    shards: dict[str, set[str]] = {}
    for name, file in weight_map.items():
        if not isinstance(file, str) or set(file) & set("/\\\0\n\r") or file in ("", ".", ".."):
            raise UsageError(
                f"{index} places {name[:120]!r} in something else than a file beside it"
            )
        shards.setdefault(file, set()).add(name)
    for file in shards:
        try:
            there = (index.parent / file).is_file()
        except OSError:
            there = False
        if not there:
            raise UsageError(f"{index} names the file {file[:120]!r}, which isn't there")
    return {index.parent / file: names for file, names in sorted(shards.items())}


def _open(file: Path, stack: contextlib.ExitStack) -> dict[str, tuple[TensorInfo, _Reader]]:
    """Every tensor of a file: what it is, and how to read it."""
    if file.suffix == ".safetensors":
        opened = SafetensorsFile(file)
        stack.callback(opened.close)
        return {
            name: (info, functools.partial(opened.read, name))
            for name, info in opened.tensors.items()
        }
    torch_file = TorchFile(file)
    stack.callback(torch_file.close)
    return {
        name: (tensor.info, functools.partial(torch_file.read, tensor))
        for name, tensor in tensors_in(torch_file).items()
    }


def _check_index(file: Path, names: set[str] | None, found: Mapping[str, Any]) -> None:
    if names is None:
        return
    for name in sorted(names - found.keys()):
        raise UsageError(f"{file} has no tensor {name[:120]!r}, which the index places there")
    for name in sorted(found.keys() - names):
        raise UsageError(f"{file} has a tensor {name[:120]!r}, which the index doesn't place there")


class HuggingFaceDestination:
    """Writes a Hugging Face folder: safetensors in shards of at most 5 GB, and config.json.

    Args:
      folder: an empty folder.
      order: the names in the order in which tensors will come.
      tensors: shape and dtype of each.
      facts: H, the names' prefix and the config.json to bring up to date, where they are known.
      max_shard_bytes: a larger tensor has a file of its own.

    Raises:
      RunError: the disk failed.
    """

    def __init__(
        self,
        folder: Path,
        order: list[str],
        tensors: Mapping[str, TensorInfo],
        facts: SourceMetadata,
        *,
        max_shard_bytes: int = _MAX_SHARD_BYTES,
    ) -> None:
        self.order = order
        self._folder = folder
        # The names that GLMForConditionalGeneration has, unless the weights came with others.
        self._prefix = _PREFIX if facts.huggingface_config is None else facts.name_prefix
        dimensions = measure(tensors, str(folder), lambda _: str(folder))
        heads = find_heads(dimensions, facts.num_attention_heads)
        self._config = config_fields(dimensions, tensors, heads, facts.huggingface_config)
        self._index = _plan_shards(dimensions, tensors, self._prefix, max_shard_bytes)
        self._total = sum(info.nbytes for info in tensors.values())
        self._writers: dict[str, SafetensorsWriter] = {}
        for file in dict.fromkeys(self._index.values()):
            held = {
                name: tensors[name.removeprefix(self._prefix)]
                for name, shard in self._index.items()
                if shard == file
            }
            self._writers[file] = SafetensorsWriter(folder / file, held)

    def write(self, name: str, tensor: np.ndarray) -> None:
        """Adds one tensor under its original name.

        Raises:
          RunError: the disk failed.
        """
        full = f"{self._prefix}{name}"
        self._writers[self._index[full]].write(full, tensor)

    def finish(self) -> None:
        """Completes the files and writes the index, where there is more than one, and config.json.

        Raises:
          RunError: the disk failed.
        """
        for writer in self._writers.values():
            writer.finish()
        try:
            if len(self._writers) > 1:
                index = {"metadata": {"total_size": self._total}, "weight_map": self._index}
                path = self._folder / f"{_WEIGHT_FILES[0]}.index.json"
                path.write_text(json.dumps(index, indent=2) + "\n")
            path = self._folder / "config.json"
            path.write_text(json.dumps(self._config, indent=2) + "\n")
        except OSError as error:
            raise RunError(f"{self._folder} can't be written: {error.strerror}") from error


def _plan_shards(
    dimensions: Dimensions, tensors: Mapping[str, TensorInfo], prefix: str, max_bytes: int
) -> dict[str, str]:
    """The file of every tensor by its full name; a file is full before the next one begins."""
    shards: list[list[str]] = [[]]
    filled = 0
    for name in dimensions.shapes():
        nbytes = tensors[name].nbytes
        if shards[-1] and filled + nbytes > max_bytes:
            shards.append([])
            filled = 0
        shards[-1].append(f"{prefix}{name}")
        filled += nbytes
    if len(shards) == 1:
        return dict.fromkeys(shards[0], _WEIGHT_FILES[0])
    return {
        name: f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        for number, shard in enumerate(shards, 1)
        for name in shard
    }
