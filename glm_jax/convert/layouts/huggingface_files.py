"""The files with weights of a Hugging Face folder: torch files or safetensors.

An index's total size is not read: that of ChatGLM-6B is wrong.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from glm_jax.convert.formats.safetensors import SafetensorsFile
from glm_jax.convert.formats.torch_reader import TorchFile
from glm_jax.convert.layouts.huggingface_config import CONFIG_FILE, read_json
from glm_jax.convert.layouts.state_dict import read_state_dict, shown
from glm_jax.convert.weights import TensorInfo
from glm_jax.errors import UsageError

# In the order in which the transformers library looks for them.
WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")
SAFETENSORS_SUFFIX = ".safetensors"

_Reader = Callable[[], np.ndarray]


class HuggingFaceFiles:
    """All open files of a folder, or one file alone.

    Attributes:
      path: what was opened.
      folder: where config.json and the other side files are.
      config: config.json, None where a file has none in its folder.
      tensors: every tensor by its stored name.
      others: what is no tensor, with its file.

    Raises:
      UsageError: a file is missing or damaged, or a tensor is there twice.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        alone = self.path.is_file()
        self.folder = self.path.parent if alone else self.path
        # A file of weights says enough by itself; a folder is one of Hugging Face by its config.
        described = not alone or (self.folder / CONFIG_FILE).is_file()
        self.config = read_json(self.folder / CONFIG_FILE) if described else None
        self._files: dict[str, Path] = {}
        self._readers: dict[str, _Reader] = {}
        self.tensors: dict[str, TensorInfo] = {}
        self.others: dict[str, str] = {}
        with contextlib.ExitStack() as stack:
            shards = _file_alone(self.path) if alone else find_shards(self.path)
            self._open_all(shards, stack)
            self.close = stack.pop_all().close

    def where(self, name: str) -> str:
        """The file that holds a tensor."""
        return str(self._files[name])

    def read(self, name: str) -> np.ndarray:
        """One tensor by its stored name, as a C-contiguous array that the caller owns.

        Raises:
          UsageError: the bytes are damaged.
        """
        return self._readers[name]()

    def _open_all(
        self, shards: Mapping[Path, set[str] | None], stack: contextlib.ExitStack
    ) -> None:
        """Opens the files and notes what is where."""
        for file, names in shards.items():
            found, others = _open(file, stack)
            self.others |= dict.fromkeys(others, str(file))
            _check_index(file, names, found)
            for name, (info, reader) in found.items():
                if name in self.tensors:
                    raise UsageError(f"{shown(name)} is in {self._files[name]} and in {file}")
                self.tensors[name], self._files[name] = info, file
                self._readers[name] = reader


def find_shards(folder: Path) -> dict[Path, set[str] | None]:
    """The files with weights, each with its tensors' names in the folder's index, if there is one.

    Raises:
      UsageError: there is no such file, the index is unusable, or a file that it names is missing.
    """
    for name in WEIGHT_FILES:
        if (folder / name).is_file():
            return {folder / name: None}
        index = folder / f"{name}.index.json"
        if index.is_file():
            return _indexed(index)
    raise UsageError(
        f"{folder} has no weights: expected {' or '.join(WEIGHT_FILES)}, or one's index"
    )


def _file_alone(file: Path) -> dict[Path, set[str] | None]:
    """A file that was named itself, checked to be the only one of its folder's weights.

    Raises:
      UsageError: the folder's index says that it has only a part of them.
    """
    for name in WEIGHT_FILES:
        index = file.parent / f"{name}.index.json"
        if index.is_file() and file in _indexed(index):
            raise UsageError(
                f"{file} is one of the files with weights that {index.name} lists: give the "
                f"folder {file.parent}"
            )
    return {file: None}


def _indexed(index: Path) -> dict[Path, set[str] | None]:
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise UsageError(f"{index} has no 'weight_map' from tensors to files")
    shards: dict[str, set[str]] = {}
    for name, file in weight_map.items():
        if not isinstance(file, str) or set(file) & set("/\\\0\n\r") or file in ("", ".", ".."):
            raise UsageError(
                f"{index} maps {name[:120]!r} to something else than a file of its folder"
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


def _open(
    file: Path, stack: contextlib.ExitStack
) -> tuple[dict[str, tuple[TensorInfo, _Reader]], list[str]]:
    """Every tensor of a file: what it is, and how to read it. Then the names of what is none."""
    if file.suffix == SAFETENSORS_SUFFIX:
        opened = SafetensorsFile(file)
        stack.callback(opened.close)
        return {
            name: (info, functools.partial(opened.read, name))
            for name, info in opened.tensors.items()
        }, []
    torch_file = TorchFile(file)
    stack.callback(torch_file.close)
    tensors, others = read_state_dict(torch_file)
    return {
        name: (tensor.info, functools.partial(torch_file.read, tensor))
        for name, tensor in tensors.items()
    }, others


def _check_index(file: Path, names: set[str] | None, found: Mapping[str, Any]) -> None:
    if names is None:
        return
    for name in sorted(names - found.keys()):
        raise UsageError(f"{file} has no tensor {name[:120]!r}, which the index maps to it")
    for name in sorted(found.keys() - names):
        raise UsageError(f"{file} has a tensor {name[:120]!r}, which the index doesn't map to it")
