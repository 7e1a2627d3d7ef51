"""Arrays of ours that are larger than a block: written, read and restored bit for bit."""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np
import orbax.checkpoint as ocp
import pytest
import tensorstore as ts

from glm_jax.convert.convert import convert
from glm_jax.convert.layouts import native_reader, native_writer
from glm_jax.convert.layouts.native import NativeSource
from glm_jax.convert.layouts.native_reader import row_blocks
from tests.convert.tiny import HEADS, tiny_tensors, write_original


def quiet(_description: str, _bytes: int):
    return contextlib.nullcontext(lambda _done: None)


@pytest.fixture
def run_folder(tmp_path, monkeypatch) -> Path:
    """A conversion whose blocks have 128 bytes: 8 rows of the tables, 16 rows of D."""
    for module in (native_reader, native_writer):
        monkeypatch.setattr(module, "BLOCK_BYTES", 128)
    source = write_original(tmp_path / "source", tiny_tensors())
    convert(source, tmp_path / "out", "native", stages=quiet, num_attention_heads=HEADS)
    return tmp_path / "out"


def chunks_of(run_folder: Path, name: str) -> int:
    folder = run_folder / f"checkpoints/5/state/params.{name}/c"
    return sum(path.is_file() for path in folder.rglob("*"))


def test_blocks_are_complete_rows_of_one_layer(run_folder):
    assert chunks_of(run_folder, "word_embedding") == 3  # 24 rows of 16 bytes
    assert chunks_of(run_folder, "final_layernorm.scale") == 1
    assert chunks_of(run_folder, "layers.attention_layernorm.scale") == 2
    assert chunks_of(run_folder, "layers.mlp.down.kernel") == 2 * 4  # 32 rows of 16 bytes each
    assert chunks_of(run_folder, "layers.mlp.up.kernel") == 2 * 4  # 8 rows of 64 bytes each


@pytest.mark.parametrize("block_bytes", [1, 100, 128, 1 << 20])
def test_every_bit_comes_back_in_blocks_of_any_size(run_folder, monkeypatch, block_bytes):
    monkeypatch.setattr(native_reader, "BLOCK_BYTES", block_bytes)
    with NativeSource(run_folder) as source:
        for name, tensor in tiny_tensors().items():
            np.testing.assert_array_equal(source.read(name), tensor, err_msg=name)


def test_orbax_restores_blocks(run_folder):
    with ocp.PyTreeCheckpointer() as checkpointer:
        restored = checkpointer.restore(run_folder / "checkpoints/5/state")
    found = np.asarray(restored["params"]["word_embedding"])
    np.testing.assert_array_equal(found, tiny_tensors()["word_embeddings.weight"])


@pytest.mark.parametrize(
    ("chunk_rows", "expected"),
    [(1, [4, 4, 2]), (3, [3, 3, 3, 1]), (4, [4, 4, 2]), (7, [7, 3]), (10, [10])],
)
def test_blocks_are_made_of_complete_chunks(monkeypatch, chunk_rows, expected):
    monkeypatch.setattr(native_reader, "BLOCK_BYTES", 4 * 8)
    spec = {"driver": "zarr3", "kvstore": "memory://", "create": True}
    layout = ts.ChunkLayout(chunk_shape=[chunk_rows, 4])
    array = ts.open(spec, dtype=ts.int16, shape=[10, 4], chunk_layout=layout).result()
    assert [rows.stop - rows.start for rows in row_blocks(array)] == expected
