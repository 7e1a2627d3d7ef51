"""Some 700 damaged or hostile checkpoints, made from tiny good ones.

Each is a function that fills an empty folder and returns the path to convert. Whoever reads it must
answer with one sentence naming a file in that folder and make no file `marker`; or, where only
bytes that carry nothing were damaged, read the very tensors of `expected_tensors()`.
"""

from __future__ import annotations

import dataclasses
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from tests.convert import hostile_archives, hostile_headers, hostile_ranks
from tests.convert.hostile_pickles import (
    bad_tensors,
    calling_pickles,
    exhausting_pickles,
    malformed_pickles,
)
from tests.convert.tiny import (
    bytes_of,
    legacy_bytes,
    legacy_checkpoint,
    tiny_tensors,
    write_hugging_face,
    write_original,
    zip_bytes,
)

# Fills a folder, and returns the path to convert; the second path is the marker's.
Maker = Callable[[Path, Path], Path]

_RANK_FILE = "5/mp_rank_01_model_states.pt"


@dataclasses.dataclass(frozen=True)
class HostileInput:
    """One input.

    Attributes:
      name: what is wrong, unique.
      kind: "original" or "huggingface".
      make: fills an empty folder.
      may_read: whether the damage may lie in bytes that carry nothing, or in what is left out.
      number: among the random damages of its kind; 0 for others.
    """

    name: str
    kind: str
    make: Maker
    may_read: bool = False
    number: int = 0


def expected_tensors() -> dict[str, np.ndarray]:
    """What every input held before it was damaged."""
    return tiny_tensors()


def hostile_inputs(seed: int = 0) -> list[HostileInput]:
    """All of them; the seed places random damage."""
    inputs = [
        *_random_damage(seed),
        *_pickles(),
        *(HostileInput(f"archive: {n}", "original", m) for n, m in hostile_archives.makers()),
        *(HostileInput(f"ranks: {n}", "original", m) for n, m in hostile_ranks.makers()),
        *(
            HostileInput(f"folder: {n}", "huggingface", m, n in hostile_headers.EXTRA)
            for n, m in hostile_headers.makers()
        ),
    ]
    if len({one.name for one in inputs}) != len(inputs):
        raise ValueError("two inputs have one name")
    return inputs


def _random_damage(seed: int) -> Iterator[HostileInput]:
    """Truncations and changed bytes at random places of a good file of each format."""
    source = random.Random(seed)
    for number in range(40):
        place, mask = source.random(), source.randrange(1, 256)
        single = 1 << source.randrange(8)
        zipped, folder, legacy = "original", "huggingface", "original"
        for name, kind, make, may_read in (
            ("zip cut", zipped, _cut(_original, place), False),
            ("zip byte", zipped, _flip(_original, len, place, mask), True),
            ("zip bit", zipped, _flip(_original, len, place, single), True),
            ("legacy cut", legacy, _cut(_legacy, place), False),
            ("safetensors cut", folder, _cut(_hugging_face, place), False),
            # These formats have no checksums: only what describes the tensors can be checked.
            ("legacy byte", legacy, _flip(_legacy, _header_bytes, place, mask), True),
            ("safetensors byte", folder, _flip(_hugging_face, _header_bytes, place, mask), True),
        ):
            yield HostileInput(f"{name} {number}", kind, make, may_read, number)


def _original(folder: Path) -> tuple[Path, Path]:
    """Fills a folder; returns the path to convert and the file to damage."""
    shutil.rmtree(folder)
    write_original(folder, expected_tensors(), ranks=2)
    return folder, folder / _RANK_FILE


def _legacy(folder: Path) -> tuple[Path, Path]:
    path = folder / "mp_rank_00_model_states.pt"
    path.write_bytes(legacy_checkpoint(expected_tensors()))
    return path, path


def _hugging_face(folder: Path) -> tuple[Path, Path]:
    shutil.rmtree(folder)
    write_hugging_face(folder, expected_tensors())
    return folder, folder / "model.safetensors"


def _header_bytes(data: bytes) -> int:
    """The bytes before the first tensor's."""
    return data.index(bytes_of(next(iter(expected_tensors().values()))))


def _cut(fill: Callable[[Path], tuple[Path, Path]], place: float) -> Maker:
    def make(folder: Path, _: Path) -> Path:
        path, file = fill(folder)
        data = file.read_bytes()
        file.write_bytes(data[: int(place * len(data))])
        return path

    return make


def _flip(
    fill: Callable[[Path], tuple[Path, Path]],
    reach: Callable[[bytes], int],
    place: float,
    mask: int,
) -> Maker:
    """Changes one of the file's first `reach(data)` bytes."""

    def make(folder: Path, _: Path) -> Path:
        path, file = fill(folder)
        data = bytearray(file.read_bytes())
        data[int(place * reach(bytes(data)))] ^= mask
        file.write_bytes(data)
        return path

    return make


def _pickles() -> Iterator[HostileInput]:
    """Every bad pickle, in both formats."""
    fixed = exhausting_pickles() | malformed_pickles()
    for name in calling_pickles(Path("marker")):
        yield HostileInput(f"zip: {name}", "original", _calling(name, legacy=False))
        yield HostileInput(f"legacy: {name}", "original", _calling(name, legacy=True))
    for name, pickled in fixed.items():
        yield HostileInput(f"zip: {name}", "original", _file(zip_bytes(pickled, {})))
        yield HostileInput(f"legacy: {name}", "original", _file(legacy_bytes(pickled, {})))
    rest = {
        str(key): (tensor.size, bytes_of(tensor))
        for key, tensor in enumerate(expected_tensors().values())
    }
    for name, (pickled, key, storage) in bad_tensors(legacy=False).items():
        storages = {number: data for number, (_, data) in (rest | {key: storage}).items()}
        yield HostileInput(f"zip: {name}", "original", _file(zip_bytes(pickled, storages)))
    for name, (pickled, key, storage) in bad_tensors(legacy=True).items():
        data = legacy_bytes(pickled, rest | {key: storage})
        yield HostileInput(f"legacy: {name}", "original", _file(data))


def _calling(name: str, *, legacy: bool) -> Maker:
    def make(folder: Path, marker: Path) -> Path:
        pickled = calling_pickles(marker)[name]
        data = legacy_bytes(pickled, {}) if legacy else zip_bytes(pickled, {})
        return _file(data)(folder, marker)

    return make


def _file(data: bytes) -> Maker:
    def make(folder: Path, _: Path) -> Path:
        path = folder / "mp_rank_00_model_states.pt"
        path.write_bytes(data)
        return path

    return make
