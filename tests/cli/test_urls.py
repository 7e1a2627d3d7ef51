"""A store and a run on another file system than the local one: fsspec's in memory."""

from __future__ import annotations

import json

import pytest

from glm_jax.cli.main import main
from glm_jax.data.prepare.run import prepare as prepare_store
from glm_jax.errors import UsageError
from glm_jax.io.files import file_exists, folder_names, read_file, remove_folder
from glm_jax.tokenizer import load_tokenizer


@pytest.fixture
def bucket(tmp_path):
    """A URL, below which nothing is left."""
    yield f"memory://{tmp_path.name}/ein Ordner ü"
    remove_folder(f"memory://{tmp_path.name}")


@pytest.fixture
def corpus(tmp_path):
    folder = tmp_path / "corpus"
    folder.mkdir()
    for number in range(60):
        text = f"Text number {number}. The quick brown fox jumps over the lazy dog.\n" * 8
        (folder / f"{number}.txt").write_text(text)
    return folder


def prepare(corpus, out: str, *more: str) -> int:
    return main(["prepare", str(corpus), f"--out={out}", "--workers=1", *more])


def test_a_store_is_prepared_at_a_url_all_or_nothing(bucket, corpus, tiny_store, capsys):
    tokenizer = f"--tokenizer={tiny_store}"
    out = f"{bucket}/store"
    assert prepare(corpus, f"{out}/", tokenizer) == 0
    names = ["metadata.json", "report.json", "report.png", "tokenizer", "train", "validation"]
    assert folder_names(out) == names
    assert folder_names(bucket) == ["store"]  # the shards are gone
    before = read_file(f"{out}/metadata.json")
    assert prepare(corpus, out, tokenizer) == 2
    assert "there is a token store at" in capsys.readouterr().err
    assert prepare(corpus, out, tokenizer, "--validation_fraction=1e-9", "--overwrite") == 2
    assert "validation split would be empty" in capsys.readouterr().err
    assert read_file(f"{out}/metadata.json") == before
    fraction = "--validation_fraction=0.3"
    assert prepare(corpus, out, f"--tokenizer={out}", fraction, "--overwrite") == 0
    splits = json.loads(read_file(f"{out}/metadata.json"))["splits"]
    assert splits["validation"]["num_documents"] > 10


def test_a_local_store_and_one_at_a_url_are_the_same(bucket, corpus, tiny_store, tmp_path):
    for out in (f"{bucket}/store", str(tmp_path / "store")):
        assert prepare(corpus, out, f"--tokenizer={tiny_store}", "--validation_fraction=0.3") == 0
    for name in ("metadata.json", "train/tokens/c/0", "validation/document_starts/c/0"):
        assert read_file(f"{bucket}/store/{name}") == read_file(tmp_path / "store" / name)


@pytest.mark.slow
def test_a_run_is_trained_resumed_and_filled_at_a_url(bucket, corpus, tiny_store, tiny_run, capsys):
    store, run = f"{bucket}/store", f"{bucket}/run"
    assert prepare(corpus, store, f"--tokenizer={tiny_store}", "--validation_fraction=0.3") == 0
    settings = [f"--gin.train.run_folder={run}", f"--gin.data.store={store}"]
    settings += ["--gin.checkpoint.keep=2", "--gin.checkpoint.every=1"]
    assert main(["pretrain", f"--gin_file={tiny_run}", *settings, "--gin.train.num_steps=2"]) == 0
    for name in ("config.gin", "metrics.jsonl", "loss.png", "tokenizer/glm_tokenizer.json"):
        assert file_exists(f"{run}/{name}")
    assert len(folder_names(f"{run}/tensorboard")) == 1
    assert folder_names(f"{run}/checkpoints") == ["1", "2"]
    assert main(["pretrain", f"--gin_file={run}/config.gin", "--gin.train.num_steps=3"]) == 0
    assert folder_names(f"{run}/checkpoints") == ["2", "3"]
    lines = [json.loads(line) for line in read_file(f"{run}/metrics.jsonl").splitlines()]
    assert [line["step"] for line in lines if line["kind"] == "train"] == [1, 2, 3]
    assert f"'--gin_file={run}/config.gin'" in capsys.readouterr().out
    for checkpoint, tokenizer in ((run, []), (f"{run}/checkpoints/2", [f"--tokenizer={run}"])):
        assert main(["fill", checkpoint, "a [MASK]", "--max_blank_length=1", *tokenizer]) == 0
    assert main(["hosts", run]) == 0


class OtherMachines:
    """A runner whose workers don't have the files of this machine."""

    def shards(self, inputs, options, work, folder):
        raise AssertionError("nothing is read")

    def total(self, items, work, folder):
        raise AssertionError("nothing is written")


def test_other_machines_can_not_write_a_store_that_is_uploaded_from_here(bucket, tiny_store):
    with pytest.raises(UsageError, match="which only the processes of one machine can write"):
        prepare_store(["nothing"], bucket, load_tokenizer(tiny_store), runner=OtherMachines())
