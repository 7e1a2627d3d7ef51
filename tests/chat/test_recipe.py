"""Complete conversations with a small ChatGLM that has the real vocabulary."""

from __future__ import annotations

import io
import json

import pytest

from glm_jax.chat.session import ChatSession
from glm_jax.chat.settings import ChatSettings
from glm_jax.convert.load import load_glm
from glm_jax.generate.fill import Filler
from glm_jax.tokenizer import load_tokenizer
from tests.chat.chatglm_recipe import turns


@pytest.fixture(scope="module")
def session(recipe):
    model, params = load_glm(recipe)
    return ChatSession(Filler(model, params, load_tokenizer(recipe)))


def test_recorded_conversations(golden, session):
    end = session.form.continue_ids([]).ids  # only to see that the form is ChatGLM's: gMASK
    assert end == [130001]
    assert len(golden["recipe_chat"]) == 12
    for row in golden["recipe_chat"]:
        settings = ChatSettings(temperature=0, max_length=row["max_length"])
        reply, pieces = session.ask(turns(row["history"]), row["query"], settings)
        shown = list(pieces)
        expected = row["output_ids"]
        complete = row["stops_at"] == "eos"
        assert reply.num_prompt_tokens == len(row["input_ids"])
        assert reply.ids == (expected[:-1] if complete else expected), row
        assert reply.complete == complete and reply.note is None
        assert reply.text == row["response"] == "".join(shown)


def test_the_command_answers_as_recorded(golden, recipe, run_here, tmp_path, monkeypatch):
    rows = [row for row in golden["recipe_chat"] if "\n" not in row["query"] and row["query"]]
    for row in rows[:2]:
        path = tmp_path / "history.json"
        written = [turn._asdict() for turn in turns(row["history"])]
        path.write_text(json.dumps({"turns": written}))
        monkeypatch.setattr("sys.stdin", io.StringIO(row["query"] + "\n"))
        flags = ["--temperature=0", f"--max_length={row['max_length']}", f"--load={path}"]
        done = run_here(["chat", recipe, *flags])
        assert done.returncode == 0, done.stderr
        assert done.stdout == row["response"] + "\n"
        assert ("maximum length" in done.stderr) == (row["stops_at"] == "max_length")


def test_a_long_history_is_shortened_to_the_window_of_the_model(session):
    history = turns([["你好", "你好！我是助手。"]] * 40)
    reply = session.answer(history, "你好", ChatSettings(temperature=0))
    assert reply.note is not None and "turns were left out" in reply.note
    assert reply.num_prompt_tokens + len(reply.ids) <= 256
