"""Model-parallel ranks as the original's own tool split them: merged and split, bit for bit."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

import numpy as np

from glm_jax.convert.formats.torch_reader import TorchFile
from glm_jax.convert.layouts.original import OriginalSource
from glm_jax.convert.layouts.original_writer import OriginalDestination
from glm_jax.convert.layouts.rank_files import find_rank_files
from glm_jax.convert.layouts.state_dict import read_state_dict
from glm_jax.convert.weights import TensorInfo
from tests.parity.rows import Row, guarded

FOLDER = "b_model_parallel"


def rank_rows(goldens: Path) -> Iterator[Row]:
    """How many tensors of every number of ranks differ, merged and split."""
    folder = goldens / FOLDER
    for ranks in sorted(path for path in folder.glob("mp*") if path.is_dir()):
        golden = f"{FOLDER}/{ranks.name}"
        yield from guarded(golden, partial(_rows, folder, ranks, golden))


def _rows(folder: Path, ranks: Path, golden: str) -> Iterator[Row]:
    config = json.loads((folder / "config.json").read_text())
    with np.load(folder / "merged_expected.npz") as arrays:
        expected = dict(arrays)
    with OriginalSource(ranks) as source:
        merged = {name: source.read(name) for name in source.tensors}
        iteration = source.metadata.iteration
    yield _differing(golden, "merged tensors", expected, merged)
    recorded = _read_files(ranks)
    heads = config["num_attention_heads"]
    with tempfile.TemporaryDirectory() as name:
        num_ranks = len(find_rank_files(ranks))
        written = _write(Path(name), expected, num_ranks, iteration, heads)
        yield _differing(golden, "tensors of the ranks", recorded, written)
    wrong = float(iteration != config["iteration"])
    yield Row(golden, "iterations that differ, of 1", 0.0, wrong)


def _differing(
    golden: str,
    what: str,
    recorded: Mapping[str, np.ndarray],
    found: Mapping[str, np.ndarray],
) -> Row:
    different = sum(
        name not in recorded
        or name not in found
        or recorded[name].dtype != found[name].dtype
        or recorded[name].shape != found[name].shape
        or recorded[name].tobytes() != found[name].tobytes()
        for name in recorded.keys() | found.keys()
    )
    quantity = f"{what} that differ, of {len(recorded)}"
    return Row(golden, quantity, 0.0, different if recorded else float("inf"))


def _read_files(folder: Path) -> dict[str, np.ndarray]:
    """Every tensor of every rank, by the rank's file and its name."""
    tensors = {}
    for path in find_rank_files(folder):
        file = TorchFile(path)
        for name, tensor in read_state_dict(file)[0].items():
            tensors[f"{path.name}/{name}"] = file.read(tensor)
        file.close()
    return tensors


def _write(
    folder: Path, tensors: Mapping[str, np.ndarray], ranks: int, iteration: int | None, heads: int
) -> dict[str, np.ndarray]:
    infos = {name: TensorInfo(tensor.shape, tensor.dtype) for name, tensor in tensors.items()}
    destination = OriginalDestination(folder, list(tensors), infos, iteration, ranks, heads)
    for name, tensor in tensors.items():
        destination.write(name, tensor)
    destination.finish()
    return _read_files(folder)
