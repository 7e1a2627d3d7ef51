"""The command that fills: texts from everywhere, output for people and programs, a fill_repl."""

from __future__ import annotations

import argparse
import builtins
import json
import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

from glm_jax.cli import fill as command
from glm_jax.cli import fill_repl
from glm_jax.generate.fill import Filler
from glm_jax.generate.settings import Sampling
from glm_jax.model import GLM, GLMConfig
from tests.generate.letters import LetterTokenizer


@pytest.fixture(scope="module")
def filler() -> Filler:
    config = GLMConfig(
        vocab_size=64, num_layers=1, hidden_size=32, num_attention_heads=2, max_sequence_length=64
    )
    inputs = (jnp.zeros((1, 8), jnp.int32), jnp.zeros((1, 2, 8), jnp.int32), jnp.ones(1, jnp.int32))
    params = nn.unbox(jax.jit(GLM(config).init)(jax.random.key(0), *inputs))["params"]
    return Filler(GLM(config), params, LetterTokenizer())  # pyright: ignore[reportArgumentType]


@pytest.fixture
def fill_here(filler, monkeypatch, run_here, tmp_path):
    """Runs the command with a small model in place of the checkpoint's."""
    monkeypatch.setattr(command, "load_filler", lambda _arguments: filler)
    return lambda *arguments: run_here(["fill", tmp_path, *arguments])


def test_texts_of_a_file_come_out_in_order_with_all_that_was_asked(fill_here, filler, tmp_path):
    texts = ["one [MASK] two", "three [MASK] and [MASK]", "go on"]
    (tmp_path / "texts.txt").write_text("\n\n".join(texts) + "\n")
    options = ["--samples=2", "--top_k=5", "--seed=3", "--max_blank_length=4", "--json"]
    result = fill_here(f"--file={tmp_path / 'texts.txt'}", *options)
    assert result.returncode == 0, result.stderr
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    expected = filler.fill(texts, Sampling(4, samples=2, top_k=5, seed=3))
    assert [line["text"] for line in lines] == [filled.text for filled in expected]
    for line, filled in zip(lines, expected, strict=True):
        assert [len(line["blanks"]), len(line["samples"])] == [len(filled.blanks), 2]
        for blank, found in zip(line["blanks"], filled.blanks, strict=True):
            assert (blank["ids"], blank["log_probs"]) == (found.ids, found.log_probs)


def test_beams_tell_their_alternatives(fill_here):
    result = fill_here("a [MASK] b", "--beams=3", "--max_blank_length=3", "--json")
    (blank,) = json.loads(result.stdout)["blanks"]
    scores = [blank["score"], *(other["score"] for other in blank["alternatives"])]
    assert len(scores) == 3 and scores == sorted(scores, reverse=True)


def test_it_tells_what_it_compiled(fill_here):
    result = fill_here("a [MASK] b", "[MASK]", "--max_blank_length=3", "--verbose")
    assert result.returncode == 0 and len(result.stdout.splitlines()) == 2
    assert re.fullmatch(
        r"2 texts filled with 6 tokens in [\d.]+ s; \d programs compiled, for [\d.]+ s of it\n",
        result.stderr,
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--beams=2", "--top_k=3", "a"], "beams is 2, but beam search draws nothing"),
        (["--file=nowhere.txt"], "nowhere.txt can't be read"),
        (["--file=nowhere.txt", "a"], "give TEXT arguments or --file, not both"),
        (["--temperature=-1", "a"], "temperature is -1.0"),
        (["a" * 100 + "[MASK]"], "103 tokens"),
        (["--max_blank_length=many", "a"], "invalid int value: 'many'"),
    ],
)
def test_what_cannot_be_filled_is_one_sentence(fill_here, arguments, said):
    result = fill_here(*arguments)
    assert result.returncode == 2 and said in result.stderr
    assert result.stderr.count("\n") == 1 and result.stdout == ""


def test_a_tokenizer_may_come_from_elsewhere(run_here, tmp_path):
    result = run_here(["fill", tmp_path, "a [MASK]", "--tokenizer=gpt2"])
    assert result.returncode == 2 and "needs --tokenizer_files" in result.stderr
    result = run_here(["fill", tmp_path, "a [MASK]", "--task_mask"])
    assert result.returncode == 2 and "--task_mask needs --tokenizer" in result.stderr


def converse(filler, monkeypatch, capsys, tmp_path, *lines: str) -> str:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    typed = iter(lines)

    def type_line(_prompt: str) -> str:
        line = next(typed, None)
        if line is None:
            raise EOFError
        return line

    monkeypatch.setattr(builtins, "input", type_line)
    assert fill_repl.converse(filler, Sampling(max_blank_length=4)) == 0
    return capsys.readouterr().out


def test_a_conversation_fills_each_text_as_the_command_would(filler, monkeypatch, capsys, tmp_path):
    texts = ["one [MASK] two [MASK] three", "go on"]
    shown = converse(filler, monkeypatch, capsys, tmp_path, *texts)
    for filled in filler.fill(texts, Sampling(max_blank_length=4)):
        assert f"{filled.text}\n" in shown


def test_settings_can_be_changed_on_the_way(filler, monkeypatch, capsys, tmp_path):
    lines = [":set beams 3", ":set max_blank_length 2", "a [MASK] b", ":settings"]
    shown = converse(filler, monkeypatch, capsys, tmp_path, *lines)
    (filled,) = filler.fill(["a [MASK] b"], Sampling(max_blank_length=2, beams=3))
    assert f"{filled.text}\n" in shown
    for other in filled.blanks[0].alternatives:
        assert f"{other.score:.3f}  {other.text}" in shown
    assert "beams = 3" in shown and "max_blank_length = 2" in shown


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (":set speed 3", "unknown setting 'speed'"),
        (":set top_k many", "top_k is 'many', but must be of type int"),
        (":set early_stopping perhaps", "must be true or false"),
        (":set top_p 7", "top_p is 7.0"),
        (":sing", "unknown command ':sing'"),
        ("a" * 100, "102 tokens"),
    ],
)
def test_a_mistake_does_not_end_a_conversation(filler, monkeypatch, capsys, tmp_path, line, said):
    shown = converse(filler, monkeypatch, capsys, tmp_path, line, ":set top_k", "a [MASK]")
    (filled,) = filler.fill(["a [MASK]"], Sampling(max_blank_length=4))
    assert said in shown and f"{filled.text}\n" in shown


def test_only_newlines_end_a_text_of_a_file(tmp_path):
    file = tmp_path / "texts.txt"
    file.write_bytes("\ufeffa\u2028b [MASK]\r\n\nc [MASK]".encode())
    assert command.read_texts(argparse.Namespace(file=file, texts=[])) == {
        1: "a\u2028b [MASK]",
        3: "c [MASK]",
    }


TOO_LONG = "a" * 100 + "[MASK]"


def test_a_line_that_is_too_long_is_named_and_the_others_are_filled(fill_here, filler, tmp_path):
    (tmp_path / "texts.txt").write_text(f"one [MASK]\n\n{TOO_LONG}\ntwo [MASK]\n")
    arguments = [f"--file={tmp_path / 'texts.txt'}", "--max_blank_length=3"]
    one, two = filler.fill(["one [MASK]", "two [MASK]"], Sampling(3))

    result = fill_here(*arguments)
    assert result.returncode == 1
    assert result.stdout == f"{one.text}\n{two.text}\n"
    assert result.stderr.splitlines() == [
        "glm-jax: line 3: a text has 103 tokens with those around it, but the model has positions "
        "only for 65",
        "glm-jax: 1 of 3 texts could not be filled",
    ]
    result = fill_here(*arguments, "--json")
    first, refused, last = map(json.loads, result.stdout.splitlines())
    assert (first["text"], last["text"]) == (one.text, two.text)
    assert refused["line"] == 3 and "103 tokens" in refused["error"]
    assert result.returncode == 1 and result.stderr.count("\n") == 1


def test_nothing_but_lines_that_are_too_long(fill_here, tmp_path):
    (tmp_path / "texts.txt").write_text(TOO_LONG)
    result = fill_here(f"--file={tmp_path / 'texts.txt'}")
    assert result.returncode == 1 and "1 of 1 texts could not be filled" in result.stderr


@pytest.mark.parametrize(
    ("checkpoint", "message"),
    [
        ("huggingface", "has no saved tokenizer; name one by --tokenizer: a folder that has one"),
        ("my run/checkpoints/8", "has no saved tokenizer; name one by --tokenizer='{}/my run'"),
    ],
)
def test_a_checkpoint_without_a_tokenizer_says_how_to_name_one(
    run_here, tmp_path, checkpoint, message
):
    (tmp_path / checkpoint).mkdir(parents=True)
    (tmp_path / "my run/tokenizer").mkdir(parents=True, exist_ok=True)
    result = run_here(["fill", tmp_path / checkpoint, "a [MASK]"])
    assert result.returncode == 2 and result.stderr.count("\n") == 1
    assert message.format(tmp_path) in result.stderr
