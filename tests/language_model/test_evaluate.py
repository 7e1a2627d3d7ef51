"""`glm-jax evaluate --task` of language modelling tasks, and what it refuses."""

from __future__ import annotations

import json

import pytest

from glm_jax.cli.main import main
from tests.serve.tiny_checkpoint import write_checkpoint


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("language_model") / "checkpoint")


def evaluate(checkpoint, task, file, *more) -> int:
    return main(["evaluate", str(checkpoint), f"--task={task}", f"--data={file}", *more])


def test_perplexity_of_lines_and_its_picture(checkpoint, tmp_path, capsys):
    text = (
        "some words that are longer than a window of the tiny network has positions for\n\nshort\n"
    )
    (tmp_path / "lines.txt").write_text(text)
    more = ["--gin.language_model.sequence_length=32", "--gin.language_model.batch_size=2"]
    more += [f"--picture={tmp_path / 'losses.png'}", "--json"]
    assert evaluate(checkpoint, "language_model", tmp_path / "lines.txt", *more) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["num_tokens"] == len(text) - 3 - 2
    assert found["token_perplexity"] > 1 and found["byte_perplexity"] < found["token_perplexity"]
    assert (tmp_path / "losses.png").read_bytes().startswith(b"\x89PNG")
    # The stride does not change which tokens are scored.
    more[2:] = ["--gin.language_model.stride=3", "--json"]
    assert evaluate(checkpoint, "language_model", tmp_path / "lines.txt", *more) == 0
    assert json.loads(capsys.readouterr().out)["num_tokens"] == found["num_tokens"]


def test_lambada(checkpoint, tmp_path, capsys):
    passages = ["the ferry left at dawn", "rain fell"]
    rows = "".join(json.dumps({"text": text}) + "\n" for text in passages)
    (tmp_path / "test.jsonl").write_text(rows)
    assert evaluate(checkpoint, "lambada", tmp_path / "test.jsonl", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["num_passages"] == 2 and 0 <= found["accuracy"] <= 100


@pytest.mark.parametrize(
    ("task", "text", "more", "sentence"),
    [
        ("wikitext", None, (), "is missing"),
        ("wikitext", "a", (), "no text of two tokens"),
        ("lambada", '{"text": "one"}\n', (), "a passage of two words or more"),
        ("lambada", "no JSON\n", (), "line 1: no JSON object"),
        ("ptb", "some text", ("--gin.language_model.stride=64",), "the stride is 64"),
        (
            "ptb",
            "some text",
            ("--gin.language_model.stride=31", "--gin.language_model.sequence_length=32"),
            "the stride is 31; windows of 31 tokens need 1 to 30",
        ),
        ("ptb", "", (), "no text of two tokens"),
        ("ptb", b"\xff", (), "is not UTF-8 text"),
        ("lambada", "", (), "has no passages"),
        ("lambada", '{"text": "a b"}\n{"text": 1}\n', (), "line 2: expected a passage of two"),
        ("ptb", "some text", ("--gin.language_model.batch_size=0",), "batch_size is 0"),
        ("ptb", "some text", ("--gin.language_model.name=pdb",), "did you mean ptb?"),
        ("ptb", "some text", ("--gin.language_model.sequence_length=99",), "positions only for 64"),
        ("lambada", '{"text": "a b"}\n', ("--gin.language_model.stride=4",), "is for documents"),
        ("ptb", "some text", ("--gin.language_model.split=dev",), "is for data sets of TFDS"),
        ("lambada", '{"text": "a b"}\n', ("--split=dev",), "--split is not for --task=lambada"),
    ],
)
def test_bad_input_is_one_sentence(checkpoint, tmp_path, capsys, task, text, more, sentence):
    file = tmp_path / "file"
    if text is not None:
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
    assert evaluate(checkpoint, task, file, *more) == 2
    error = capsys.readouterr().err
    assert sentence in error and error.count("\n") == 1, error
