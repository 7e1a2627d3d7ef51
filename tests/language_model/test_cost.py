"""What quantization costs on held-out text."""

from __future__ import annotations

import json
import re

import pytest

from glm_jax.cli.main import main
from tests.serve.tiny_checkpoint import write_checkpoint

TEXT = "some words that nobody has seen\nand a second document of them\n"


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "held_out.txt"
    path.write_text(TEXT)
    return path


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("cost") / "checkpoint")


def perplexity(checkpoint, text, capsys) -> float:
    capsys.readouterr()
    command = ["evaluate", str(checkpoint), "--task=language_model", f"--data={text}", "--json"]
    assert main(command) == 0
    return json.loads(capsys.readouterr().out)["token_perplexity"]


def test_quantization_says_what_it_costs_on_a_text(checkpoint, text, tmp_path, capsys):
    changes = {}
    before = perplexity(checkpoint, text, capsys)
    for kind in ("int8", "int4"):
        out = tmp_path / kind
        command = ["convert", str(checkpoint), str(out), f"--quantize={kind}"]
        assert main([*command, f"--held_out={text}"]) == 0
        line = capsys.readouterr().out.splitlines()[-1]
        found = re.fullmatch(
            rf"held out     perplexity of a token (\S+) before and (\S+) after \((\S+)%\), on "
            rf"\d+ tokens of {re.escape(str(text))}",
            line,
        )
        assert found, line
        after = perplexity(out, text, capsys)
        assert float(found[1]) == pytest.approx(before, rel=1e-4)
        assert float(found[2]) == pytest.approx(after, rel=1e-4)
        changes[kind] = abs(after / before - 1)
        # It is the integers that are scored: expanded to floats they give the same.
        expanded = tmp_path / f"{kind}_expanded"
        assert main(["convert", str(out), str(expanded), "--quantize=none"]) == 0
        assert perplexity(expanded, text, capsys) == pytest.approx(after, rel=1e-5)
    assert 0 < changes["int8"] < changes["int4"]


def test_a_text_that_is_missing_is_refused_before_anything_is_written(checkpoint, tmp_path, capsys):
    command = ["convert", str(checkpoint), str(tmp_path / "out"), "--quantize=int8"]
    assert main([*command, f"--held_out={tmp_path / 'none.txt'}"]) == 2
    error = capsys.readouterr().err
    assert "none.txt" in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists()
    assert main([*command, "--held_out=a.txt", "--base=b"]) == 2
    assert "--held_out is for complete networks" in capsys.readouterr().err
