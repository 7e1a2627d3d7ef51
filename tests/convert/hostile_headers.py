"""Hugging Face folders with bad safetensors headers, indexes and configurations."""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tests.convert.tiny import bytes_of, tiny_tensors, write_hugging_face, zip_checkpoint

_FIRST = "glm.word_embeddings.weight"
_SECOND = "glm.transformer.position_embeddings.weight"

# Tensors that GLM doesn't have are left out, whatever they are called.
EXTRA = ("header with a foreign tensor", "header with a name of several lines")


def makers() -> Iterator[tuple[str, Callable[[Path, Path], Path]]]:
    """Fills a folder with each checkpoint, by what is wrong with it."""
    for name, change in _HEADERS.items():
        yield f"header with {name}", _header(change)
    for name, data in _raw_files().items():
        yield f"safetensors: {name}", _file("model.safetensors", data)
        yield f"config.json: {name}", _file("config.json", data)
    for name, change in _INDEXES.items():
        yield f"index with {name}", _index(change)
    for name, fields in _CONFIGS.items():
        yield f"config.json with {name}", _config(fields)
    yield "no weights", _missing("model.safetensors")
    yield "no config.json", _missing("config.json")
    for name, value in {"NaN": np.nan, "infinity": np.inf}.items():
        yield f"{name} in a tensor", _spoiled(value)
    yield "a torch file of something else", _torch_file


def _folder(folder: Path, max_shard_bytes: int = 1 << 30) -> Path:
    shutil.rmtree(folder)
    return write_hugging_face(folder, tiny_tensors(), max_shard_bytes)


def _spoiled(value: float) -> Callable[[Path, Path], Path]:
    def make(folder: Path, _: Path) -> Path:
        shutil.rmtree(folder)
        tensors = tiny_tensors()
        tensors["transformer.final_layernorm.bias"][3] = value
        return write_hugging_face(folder, tensors)

    return make


def _torch_file(folder: Path, _: Path) -> Path:
    _folder(folder)
    (folder / "model.safetensors").unlink()
    foreign = {"bert.embeddings.weight": np.zeros((2, 2), np.float16)}
    (folder / "pytorch_model.bin").write_bytes(zip_checkpoint(foreign))
    return folder


def _missing(name: str) -> Callable[[Path, Path], Path]:
    def make(folder: Path, _: Path) -> Path:
        (_folder(folder) / name).unlink()
        return folder

    return make


def _file(name: str, data: bytes) -> Callable[[Path, Path], Path]:
    def make(folder: Path, _: Path) -> Path:
        (_folder(folder) / name).write_bytes(data)
        return folder

    return make


def _raw_files() -> dict[str, bytes]:
    def file(text: bytes, data: bytes = b"") -> bytes:
        return struct.pack("<Q", len(text)) + text + data

    deep = b"[" * 100_000
    return {
        "nothing": b"",
        "three bytes": b"abc",
        "no header": file(b""),
        "an endless header": struct.pack("<Q", (1 << 64) - 1) + b"{}",
        "a header beyond the end": struct.pack("<Q", 100) + b"{}",
        "no JSON": file(b"{nothing}"),
        "no text": file(b"\xff\xfe\xff\xfe"),
        "a list": file(b"[]"),
        "a number": file(b"1"),
        "deep lists": file(deep),
        "deep dictionaries": file(b'{"a":' * 100_000),
        "a number of many digits": file(b'{"a":' + b"9" * 100_000 + b"}"),
        "an empty header": file(b"{}"),
        "bytes behind an empty header": file(b"{}", b"12345678"),
    }


Header = dict[str, Any]


def _entry(**fields: Any) -> Callable[[Header], Header]:
    return lambda header: header | {_FIRST: header[_FIRST] | fields}


def _swapped(header: Header) -> Header:
    first, second = header[_FIRST], header[_SECOND]
    return header | {_FIRST: second, _SECOND: first}


_HEADERS: dict[str, Callable[[Header], Header]] = {
    "an unknown dtype": _entry(dtype="F8_E4M3"),
    "a dtype that is a number": _entry(dtype=16),
    "no dtype": _entry(dtype=None),
    "a dtype of whole numbers": _entry(dtype="I16"),
    "a shape that is text": _entry(shape="24, 8"),
    "a shape that is a number": _entry(shape=192),
    "a negative shape": _entry(shape=[-24, -8]),
    "a fractional shape": _entry(shape=[24.0, 8]),
    "a true shape": _entry(shape=[True, 192]),
    "another shape": _entry(shape=[8, 24]),
    "a larger shape": _entry(shape=[25, 8]),
    "an absurd shape": _entry(shape=[1 << 62, 1 << 62]),
    "very many axes": _entry(shape=[1] * 1000),
    "one offset": _entry(data_offsets=[0]),
    "three offsets": _entry(data_offsets=[0, 1, 384]),
    "negative offsets": _entry(data_offsets=[-384, 0]),
    "turned offsets": _entry(data_offsets=[384, 0]),
    "offsets that are text": _entry(data_offsets="0, 384"),
    "offsets beyond the end": _entry(data_offsets=[1 << 40, (1 << 40) + 384]),
    "overlapping offsets": lambda header: header | {_SECOND: header[_FIRST]},
    "two exchanged entries": _swapped,
    "a text for a tensor": lambda header: header | {_FIRST: "tensor"},
    "a missing tensor": lambda header: {k: v for k, v in header.items() if k != _FIRST},
    "a foreign tensor": lambda header: (
        header | {"lm_head": {"dtype": "F16", "shape": [0], "data_offsets": [384, 384]}}
    ),
    "a name of several lines": lambda header: (
        header | {"a\nb\ud800": {"dtype": "F16", "shape": [0], "data_offsets": [384, 384]}}
    ),
}


def _header(change: Callable[[Header], Header]) -> Callable[[Path, Path], Path]:
    def make(folder: Path, _: Path) -> Path:
        file = _folder(folder) / "model.safetensors"
        header, offset = {}, 0
        data = b""
        for name, tensor in tiny_tensors().items():
            header[f"glm.{name}"] = {
                "dtype": "F16",
                "shape": list(tensor.shape),
                "data_offsets": [offset, offset + tensor.nbytes],
            }
            offset += tensor.nbytes
            data += bytes_of(tensor)
        text = json.dumps(change(header)).encode()
        file.write_bytes(struct.pack("<Q", len(text)) + text + data)
        return folder

    return make


_PLACES: dict[str, Any] = {
    "a path upwards": "../../../etc/passwd",
    "an absolute path": "/etc/passwd",
    "a path of Windows": "..\\weights",
    "the folder itself": ".",
    "no name": "",
    "a missing file": "model-00009-of-00009.safetensors",
    "a zero byte": "model\x00.safetensors",
    "half a character": "model\ud800.safetensors",
    "a very long name": "m" * 100_000,
    "a number": 7,
    "a list": ["model.safetensors"],
    "nothing": None,
}
_INDEXES: dict[str, Callable[[Header], Header]] = {
    **{
        f"{name} for a file": lambda index, place=place: {
            "weight_map": index["weight_map"] | {_FIRST: place}
        }
        for name, place in _PLACES.items()
    },
    "a tensor in another file": lambda index: {
        "weight_map": index["weight_map"] | {_FIRST: sorted(index["weight_map"].values())[-1]}
    },
    "a tensor too many": lambda index: {
        "weight_map": index["weight_map"] | {"glm.more": index["weight_map"][_FIRST]}
    },
    "a tensor too few": lambda index: {
        "weight_map": {k: v for k, v in index["weight_map"].items() if k != _FIRST}
    },
    "no map": lambda _: {},
    "an empty map": lambda _: {"weight_map": {}},
    "a list for a map": lambda _: {"weight_map": [1]},
}


def _index(change: Callable[[Header], Header]) -> Callable[[Path, Path], Path]:
    def make(folder: Path, _: Path) -> Path:
        path = _folder(folder, max_shard_bytes=2000) / "model.safetensors.index.json"
        path.write_text(json.dumps(change(json.loads(path.read_text()))))
        return folder

    return make


_CONFIGS: dict[str, dict[str, Any]] = {
    "another vocabulary": {"vocab_size": 25},
    "another number of layers": {"num_layers": 3},
    "another width": {"hidden_size": 16},
    "other positions": {"max_sequence_length": 7},
    "no block positions": {"block_position_encoding": False},
    "relative positions": {"relative_encoding": True},
    "a width that is text": {"hidden_size": "8"},
    "no heads to speak of": {"num_attention_heads": 0},
    "heads that are text": {"num_attention_heads": "2"},
    "heads that are true": {"num_attention_heads": True},
    "a fraction of heads": {"num_attention_heads": 2.5},
    "heads that don't divide the width": {"num_attention_heads": 3},
    "negative heads": {"num_attention_heads": -2},
    "lines in a value": {"hidden_size": "a\nb"},
}


def _config(fields: dict[str, Any]) -> Callable[[Path, Path], Path]:
    def make(folder: Path, _: Path) -> Path:
        path = _folder(folder) / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | fields))
        return folder

    return make
