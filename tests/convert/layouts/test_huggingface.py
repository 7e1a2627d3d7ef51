"""Hugging Face folders in every form that weights take there."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from glm_jax.convert.layouts.huggingface import HuggingFaceSource
from glm_jax.convert.layouts.huggingface_writer import HuggingFaceDestination
from glm_jax.convert.weights import SourceMetadata
from glm_jax.errors import UsageError
from tests.convert.tiny import (
    BFLOAT16,
    HEADS,
    bytes_of,
    infos_of,
    legacy_checkpoint,
    tiny_tensors,
    write_hugging_face,
    zip_checkpoint,
)


def assert_reads(path: Path, expected: dict[str, np.ndarray]) -> None:
    with HuggingFaceSource(path) as source:
        assert dict(source.tensors) == infos_of(expected)
        assert list(source.tensors) == list(expected)
        for name, tensor in expected.items():
            assert bytes_of(source.read(name)) == bytes_of(tensor), name
            assert Path(source.where(name)).is_file()


def write_config(folder: Path, **fields: object) -> None:
    (folder / "config.json").write_text(json.dumps({"num_attention_heads": HEADS} | fields))


@pytest.mark.parametrize("dtype", [np.float16, BFLOAT16, np.float32], ids=str)
@pytest.mark.parametrize("max_shard_bytes", [1 << 30, 2000])
def test_what_is_written_reads_back(dtype, max_shard_bytes, tmp_path):
    tensors = tiny_tensors(np.dtype(dtype))
    folder = write_hugging_face(tmp_path / "model", tensors, max_shard_bytes)
    assert_reads(folder, tensors)


def test_shards_hold_no_more_than_their_size(tmp_path):
    tensors = tiny_tensors()
    folder = write_hugging_face(tmp_path / "model", tensors, max_shard_bytes=2000)
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in tensors.values())
    shards = sorted(set(index["weight_map"].values()))
    assert len(shards) > 2
    assert shards[0] == f"model-00001-of-{len(shards):05d}.safetensors"
    for shard in shards:
        names = [name for name, file in index["weight_map"].items() if file == shard]
        size = sum(tensors[name.removeprefix("glm.")].nbytes for name in names)
        assert size <= 2000 or len(names) == 1
    assert {file.name for file in folder.iterdir()} == {
        "config.json",
        "model.safetensors.index.json",
        *shards,
    }


@pytest.mark.parametrize("prefix", ["", "glm."])
@pytest.mark.parametrize("make", [zip_checkpoint, legacy_checkpoint])
def test_torch_files(make, prefix, tmp_path):
    tensors = tiny_tensors()
    write_config(tmp_path)
    named = {f"{prefix}{name}": tensor for name, tensor in tensors.items()}
    (tmp_path / "pytorch_model.bin").write_bytes(make(named))
    assert_reads(tmp_path, tensors)
    with HuggingFaceSource(tmp_path) as source:
        assert source.metadata == SourceMetadata(
            HEADS, None, prefix, {"num_attention_heads": HEADS}
        )


def test_sharded_torch_files(tmp_path):
    tensors = tiny_tensors()
    write_config(tmp_path)
    names = list(tensors)
    weight_map = {}
    for number, part in enumerate((names[:10], names[10:]), 1):
        file = f"pytorch_model-{number:05d}-of-00002.bin"
        (tmp_path / file).write_bytes(
            zip_checkpoint({f"glm.{name}": tensors[name] for name in part})
        )
        weight_map |= {f"glm.{name}": file for name in part}
    index = {"metadata": {}, "weight_map": weight_map}
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    assert_reads(tmp_path, tensors)


def test_weights_may_be_links_as_in_a_cache(tmp_path):
    folder = write_hugging_face(tmp_path / "model", tiny_tensors())
    cache = tmp_path / "snapshot"
    cache.mkdir()
    for file in folder.iterdir():
        (cache / file.name).symlink_to(file)
    assert_reads(cache, tiny_tensors())


def test_a_config_that_came_with_the_weights_is_kept(tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    kept = {"pool_token": "pad", "custom": [1, {"a": None}], "dtype": "float16", "vocab_size": 24}
    write_config(source, **kept)
    (source / "pytorch_model.bin").write_bytes(zip_checkpoint(tiny_tensors()))
    copy = tmp_path / "copy"
    copy.mkdir()
    with HuggingFaceSource(source) as opened:
        destination = HuggingFaceDestination(
            copy, list(opened.tensors), opened.tensors, opened.metadata
        )
        for name in opened.tensors:
            destination.write(name, opened.read(name))
        destination.finish()
    written = json.loads((copy / "config.json").read_text())
    assert {name: written[name] for name in kept} == kept
    assert written["num_attention_heads"] == HEADS
    assert "torch_dtype" not in written
    assert_reads(copy, tiny_tensors())
    with HuggingFaceSource(copy) as reopened:
        assert reopened.metadata.name_prefix == ""


def test_a_new_config_says_what_the_family_needs(tmp_path):
    folder = write_hugging_face(tmp_path / "model", tiny_tensors())
    config = json.loads((folder / "config.json").read_text())
    expected = {
        "model_type": "glm",
        "vocab_size": 24,
        "num_layers": 2,
        "hidden_size": 8,
        "num_attention_heads": HEADS,
        "max_sequence_length": 6,
        "attention_scale": 1.0,
        "block_position_encoding": True,
        "relative_encoding": False,
        "output_predict": True,
        "torch_dtype": "float16",
    }
    assert {name: config.get(name) for name in expected} == expected
    assert config["auto_map"]["AutoModel"] == "modeling_glm.GLMModel"


def test_heads_may_be_given_where_the_config_lacks_them(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "pytorch_model.bin").write_bytes(zip_checkpoint(tiny_tensors()))
    with HuggingFaceSource(tmp_path) as source:
        assert source.metadata.num_attention_heads is None
    with HuggingFaceSource(tmp_path, 2) as source:
        assert source.metadata.num_attention_heads == 2


def test_chatglm_is_foreign(shared):
    with pytest.raises(UsageError, match="which GLM doesn't have"):
        HuggingFaceSource(shared / "goldens/i_chatglm/ckpt")
