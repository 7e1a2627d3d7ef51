"""Original checkpoints whose files are good each, but not together, or not GLM's."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from glm_jax.convert.names import find, split
from tests.convert.tiny import (
    DIMENSIONS,
    tiny_tensors,
    write_original,
    zip_checkpoint,
)

_UP = "transformer.layers.1.mlp.dense_h_to_4h.weight"
_FUSED = "transformer.layers.1.attention.query_key_value.weight"
_NORM = "transformer.layers.0.input_layernorm.weight"
_DENSE = "transformer.layers.0.attention.dense.weight"

Tensors = dict[str, np.ndarray]


def makers() -> Iterator[tuple[str, Callable[[Path, Path], Path]]]:
    """Fills a folder with each checkpoint, by what is wrong with it."""
    for name, change in _CHANGES.items():
        for place in (0, 3):
            yield f"{name} in rank {place}", _changed(change, place)
    for name, spoil in _SPOILED.items():
        yield name, _spoiled(spoil)
    for name, (tracker, text) in _TRACKERS.items():
        yield f"a tracker file with {name}", _tracked(tracker, text)


def _shares(tensors: Tensors, ranks: int, rank: int) -> Tensors:
    shares = {}
    for name, tensor in tensors.items():
        found = find(name)
        assert found is not None
        shares[name] = list(split(found[0], tensor, ranks))[rank].copy()
    return shares


def _element(value: float, name: str) -> Callable[[Tensors], Tensors]:
    def change(tensors: Tensors) -> Tensors:
        tensor = tensors[name].copy()
        tensor.reshape(-1)[-1] = value
        return tensors | {name: tensor}

    return change


def _without(name: str) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {key: value for key, value in tensors.items() if key != name}


def _added(name: str) -> Callable[[Tensors], Tensors]:
    return lambda tensors: tensors | {name: np.zeros((2, 2), np.float16)}


# What is done to the tensors of one rank of four.
_CHANGES: dict[str, Callable[[Tensors], Tensors]] = {
    "a NaN": _element(np.nan, _UP),
    "an infinity": _element(np.inf, _UP),
    "a negative infinity": _element(-np.inf, "word_embeddings.weight"),
    "another value in a shared tensor": _element(7.0, _NORM),
    "a missing matrix": _without(_UP),
    "a missing LayerNorm": _without(_NORM),
    "a missing word embedding": _without("word_embeddings.weight"),
    "a foreign tensor": _added("bert.pooler.weight"),
    "a tensor of a foreign layer": _added("transformer.layers.9.attention.dense.weight"),
    "a layer with an odd number": _added("transformer.layers.01.attention.dense.weight"),
    "a layer with an absurd number": _added("transformer.layers.99999.attention.dense.bias"),
    "a name of several lines": _added("transformer\nlayers\x1b[2J"),
    "a name twice, with a prefix": lambda tensors: tensors | {f"module.{_UP}": tensors[_UP]},
    "a turned matrix": lambda tensors: tensors | {_FUSED: tensors[_FUSED].T.copy()},
    "a flat matrix": lambda tensors: tensors | {_UP: tensors[_UP].reshape(-1)},
    "a matrix without rows": lambda tensors: tensors | {_UP: tensors[_UP][:0]},
    "a matrix without columns": lambda tensors: tensors | {_DENSE: tensors[_DENSE][:, :0]},
    "a shorter matrix": lambda tensors: tensors | {_UP: tensors[_UP][:-1]},
    "another dtype": lambda tensors: tensors | {_UP: tensors[_UP].astype(np.float32)},
    "a vector for a word embedding": lambda tensors: (
        tensors | {"word_embeddings.weight": tensors["word_embeddings.weight"][0]}
    ),
}


def _changed(change: Callable[[Tensors], Tensors], place: int) -> Callable[[Path, Path], Path]:
    wide = dataclasses.replace(DIMENSIONS, vocab_size=32, hidden_size=16)

    def make(folder: Path, _: Path) -> Path:
        tensors = tiny_tensors(dimensions=wide)
        for rank in range(4):
            shares = _shares(tensors, 4, rank)
            data = zip_checkpoint(change(shares) if rank == place else shares)
            (folder / f"mp_rank_{rank:02d}_model_states.pt").write_bytes(data)
        return folder

    return make


def _rank(number: int) -> str:
    return f"mp_rank_{number:02d}_model_states.pt"


def _swap(tag: Path) -> None:
    (tag / _rank(0)).rename(tag / "kept")
    (tag / _rank(1)).rename(tag / _rank(0))
    (tag / "kept").rename(tag / _rank(1))


def _mix(tag: Path, seed: int, iteration: int, ranks: int = 2) -> None:
    other = write_original(tag.parent / "other", tiny_tensors(seed=seed), ranks, iteration)
    shutil.copy(other / str(iteration) / _rank(1), tag / _rank(1))
    shutil.rmtree(other)


# What is done to the folder of a good checkpoint of two ranks.
_SPOILED: dict[str, Callable[[Path], object]] = {
    "no first rank": lambda tag: (tag / _rank(0)).unlink(),
    "no second rank": lambda tag: (tag / _rank(1)).unlink(),
    "no rank at all": lambda tag: shutil.rmtree(tag),
    "an empty folder": lambda tag: [file.unlink() for file in tag.iterdir()],
    "a third rank": lambda tag: shutil.copy(tag / _rank(1), tag / _rank(2)),
    "a gap": lambda tag: shutil.copy(tag / _rank(1), tag / _rank(3)),
    "a copy beside it": lambda tag: shutil.copy(tag / _rank(1), tag / "mp_rank_01 (1).pt"),
    "one rank by two names": lambda tag: shutil.copy(
        tag / _rank(1), tag / "mp_rank_001_model_states.pt"
    ),
    "the first rank twice": lambda tag: shutil.copy(tag / _rank(0), tag / _rank(1)),
    "swapped ranks": _swap,
    "a rank of other weights": lambda tag: _mix(tag, seed=1, iteration=5),
    "a rank of another iteration": lambda tag: _mix(tag, seed=0, iteration=6),
    "a rank of four": lambda tag: _mix(tag, seed=0, iteration=5, ranks=4),
    "a file of something else": lambda tag: (tag / _rank(1)).write_text("nothing"),
    "a folder in a rank's place": lambda tag: [
        (tag / _rank(1)).unlink(),
        (tag / _rank(1)).mkdir(),
    ],
    "an unfinished file": lambda tag: (tag / _rank(1)).write_bytes(b""),
}


def _spoiled(spoil: Callable[[Path], object]) -> Callable[[Path, Path], Path]:
    def make(folder: Path, _: Path) -> Path:
        shutil.rmtree(folder)
        write_original(folder, tiny_tensors(), ranks=2)
        spoil(folder / "5")
        return folder

    return make


_TRACKERS: dict[str, tuple[str, bytes]] = {
    "nothing in it": ("latest", b""),
    "another iteration": ("latest", b"6"),
    "a missing tag": ("latest_checkpointed_iteration.txt", b"7"),
    "a path upwards": ("latest", b"../5"),
    "an absolute path": ("latest", b"/tmp"),
    "the folder itself": ("latest", b"."),
    "two lines": ("latest", b"5\n6"),
    "a zero byte": ("latest", b"5\x00"),
    "bytes that are no text": ("latest", b"\xff\xfe"),
    "a very long name": ("latest", b"5" * 100_000),
}


def _tracked(tracker: str, text: bytes) -> Callable[[Path, Path], Path]:
    def make(folder: Path, _: Path) -> Path:
        shutil.rmtree(folder)
        write_original(folder, tiny_tensors(), ranks=2)
        (folder / tracker).write_bytes(text)
        return folder

    return make
