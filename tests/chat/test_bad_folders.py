"""Folders that no conversation can be held with, each refused in one sentence."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from tests.chatglm.recorded import FOLDER
from tests.tokenizer.chatglm_stand_in import stand_in_model

pytestmark = pytest.mark.usefixtures("shared")


def refused(run_here, *arguments: str | Path) -> str:
    done = run_here(["chat", *arguments, "--temperature=0"])
    assert done.returncode == 2, done.stderr
    assert not done.stdout and done.stderr.count("\n") == 1, done.stderr
    return done.stderr


def with_tokenizer(recipe: Path, folder: Path, contents: bytes) -> Path:
    copy = folder / "copy"
    shutil.copytree(recipe, copy)
    (copy / "ice_text.model").write_bytes(contents)
    return copy


def test_a_prefix_without_its_base(run_here):
    error = refused(run_here, FOLDER / "ckpt_prefix")
    assert "holds a prefix of P-tuning v2" in error and "--base" in error


def test_a_tokenizer_that_is_no_sentencepiece_model(recipe, run_here, tmp_path):
    folder = with_tokenizer(recipe, tmp_path, bytes(range(256)) * 20)
    assert "not a SentencePiece model" in refused(run_here, folder)


def test_a_tokenizer_of_another_vocabulary(recipe, run_here, tmp_path):
    error = refused(run_here, with_tokenizer(recipe, tmp_path, stand_in_model()))
    assert "130528 rows of a word embedding: it is of another vocabulary" in error


def test_no_tokenizer(recipe, run_here, tmp_path):
    folder = with_tokenizer(recipe, tmp_path, b"")
    (folder / "ice_text.model").unlink()
    assert "has no saved tokenizer; name one by --tokenizer" in refused(run_here, folder)


def test_a_prefix_over_its_base(recipe, run_here, tmp_path, monkeypatch):
    """It has no tokenizer; that of the base is read."""
    config = json.loads((recipe / "config.json").read_text()) | {"pre_seq_len": 4}
    width = 2 * config["num_layers"] * config["hidden_size"]
    prefix = tmp_path / "prefix"
    prefix.mkdir()
    (prefix / "config.json").write_text(json.dumps(config))
    name = "transformer.prefix_encoder.embedding.weight"
    numbers = np.random.default_rng(1).normal(size=(4, width)).astype(np.float32)
    save_file({name: numbers}, prefix / "model.safetensors", metadata={"format": "pt"})
    answers = []
    for checkpoint, *flags in ([prefix, f"--base={recipe}"], [recipe]):
        monkeypatch.setattr("sys.stdin", io.StringIO("a\n"))
        done = run_here(["chat", checkpoint, *flags, "--max_length=16", "--temperature=0"])
        assert done.returncode == 0, done.stderr
        answers.append(done.stdout)
    assert answers[0] != answers[1]
