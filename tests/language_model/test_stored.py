"""Data sets that TFDS prepared give what files with the same texts give."""

from __future__ import annotations

import json

import pytest

from glm_jax.cli.main import main
from tests.language_model.test_evaluate import checkpoint, evaluate
from tests.seq2seq.test_tfds import prepare

tfds = pytest.importorskip("tensorflow_datasets")

__all__ = ["checkpoint", "prepare"]  # fixtures
TEXTS = ["the ferry left at dawn", "rain fell", "a sea without ships"]


def result(capsys) -> dict[str, float]:
    found = json.loads(capsys.readouterr().out)
    del found["task"]
    return found


def evaluate_stored(checkpoint, task, source, *more) -> int:
    return main(["evaluate", str(checkpoint), f"--task={task}", f"--data={source}", *more])


def test_lambada(checkpoint, prepare, tmp_path, capsys):
    source = prepare("lambada", {"test": [{"passage": text} for text in TEXTS]})
    file = tmp_path / "test.jsonl"
    file.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    capsys.readouterr()
    assert evaluate(checkpoint, "lambada", file, "--json") == 0
    expected = result(capsys)
    assert evaluate_stored(checkpoint, "lambada", source, "--json") == 0
    assert result(capsys) == pytest.approx(expected, rel=1e-6)


def test_documents_of_a_data_set(checkpoint, prepare, tmp_path, capsys):
    source = prepare("tiny_shakespeare", {"validation": [{"text": text} for text in TEXTS]})
    file = tmp_path / "own.txt"
    file.write_text("\n".join(TEXTS))
    capsys.readouterr()
    assert evaluate(checkpoint, "language_model", file, "--json") == 0
    expected = result(capsys)
    split = "--gin.language_model.split=dev"
    assert evaluate_stored(checkpoint, "language_model", source, split, "--json") == 0
    assert result(capsys) == pytest.approx(expected, rel=1e-6)


def test_what_a_data_set_lacks_is_one_sentence(checkpoint, prepare, capsys):
    source = prepare("tiny_shakespeare", {"validation": [{"text": "a"}]})
    for task, more, sentence in (
        ("language_model", (), "has no split for 'test' of task language_model"),
        ("language_model", ("--gin.language_model.split=dev",), "no text of two tokens or more"),
        ("lambada", ("--gin.language_model.split=dev",), "the field 'passage', found None"),
        ("wikitext", (), "task wikitext is read from a file, and not from tfds:"),
    ):
        capsys.readouterr()
        assert evaluate_stored(checkpoint, task, source, *more) == 2
        error = capsys.readouterr().err
        assert sentence in error and error.count("\n") == 1, error
