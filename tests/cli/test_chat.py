"""`glm-jax chat` with lines of standard input, and its commands."""

from __future__ import annotations

import io
import json

import pytest
from rich.console import Console

from glm_jax.chat.session import ChatSession
from glm_jax.chat.settings import ChatSettings
from glm_jax.chat.turns import Turn
from glm_jax.cli.chat_repl import ChatRepl, changed_settings, read_message
from glm_jax.convert.load import load_glm
from glm_jax.errors import UsageError
from glm_jax.generate.fill import Filler
from glm_jax.tokenizer import load_tokenizer
from tests.serve.tiny_checkpoint import write_checkpoint

GREEDY = ChatSettings(temperature=0)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("chat") / "tiny")


@pytest.fixture(scope="module")
def session(checkpoint):
    model, params = load_glm(checkpoint)
    return ChatSession(Filler(model, params, load_tokenizer(checkpoint)))


@pytest.fixture
def repl(session):
    return ChatRepl(session, GREEDY, console=Console(file=io.StringIO()))


def shown(repl: ChatRepl) -> str:
    file = repl._console.file
    assert isinstance(file, io.StringIO)
    return file.getvalue()


def test_lines_are_answered_one_by_one_with_the_history(run_here, checkpoint, session, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("hi\n\nab\n/quit\nnot read\n"))
    done = run_here(["chat", checkpoint, "--temperature=0"])
    first = session.answer([], "hi", GREEDY)
    second = session.answer([Turn("hi", first.text)], "ab", GREEDY)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{first.text}\n{second.text}\n"
    assert "\x1b" not in done.stdout


def test_a_fault_is_one_sentence_and_the_next_line_is_answered(run_here, checkpoint, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{'x' * 99}\n/nothing\n/new\nhi\n"))
    done = run_here(["chat", checkpoint, "--temperature=0"])
    assert done.returncode == 1 and len(done.stdout.splitlines()) == 1
    assert "but the window of prompt and answer only 64" in done.stderr
    assert "unknown command '/nothing'" in done.stderr and "Traceback" not in done.stderr


def test_seeds_repeat_answers(session):
    settings = ChatSettings(temperature=2.0, top_p=1.0, top_k=0)
    with_seed = changed_settings(settings, "seed", "5")
    answers = [session.answer([], "hi", with_seed).text for _ in range(2)]
    assert answers[0] == answers[1]
    assert len({session.answer([], "hi", settings).text for _ in range(5)}) > 1


def test_commands(repl, tmp_path):
    assert repl.handle("hi") and repl.handle("ab") and len(repl.turns) == 2
    repl.handle("/undo")
    assert [turn.query for turn in repl.turns] == ["hi"]
    path = tmp_path / "talk.json"
    repl.handle(f"/save {path}")
    kept = list(repl.turns)
    repl.handle("/new")
    assert repl.turns == []
    repl.handle(f"/load {path}")
    assert repl.turns == kept
    repl.handle("/settings temperature 0.5")
    assert repl.settings.temperature == 0.5
    repl.handle("/settings temperature")
    assert repl.settings == ChatSettings()
    repl.handle("/settings")
    assert "top_k = 50" in shown(repl)
    repl.handle("/help")
    assert "/undo" in shown(repl)
    assert not repl.handle("/quit")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("/what", "unknown command '/what'"),
        ("/undo", "there is no turn to forget"),
        ("/undo 2", "/undo takes nothing after it"),
        ("/save", "/save needs the name of a file"),
        ("/load /nowhere/x.json", "is no saved conversation"),
        ("/settings heat 3", "unknown setting 'heat'"),
        ("/settings top_k many", "top_k is 'many', but must be a number"),
        ("/settings top_p 3", "top_p is 3.0"),
        ("/settings max_length 1", "max_length is 1, but must be 3 or more"),
        ("/settings special_tokens maybe", "must be true or false"),
    ],
)
def test_wrong_commands_are_refused(repl, line, message):
    with pytest.raises(UsageError) as refused:
        repl.handle(line)
    assert message in str(refused.value)


def test_a_file_that_is_no_conversation_is_refused(run_here, checkpoint, tmp_path):
    for content in ("", "[]", '{"turns": [{"query": 1, "answer": "b"}]}'):
        path = tmp_path / "x.json"
        path.write_text(content)
        done = run_here(["chat", checkpoint, f"--load={path}"])
        assert done.returncode == 2 and "is no saved conversation" in done.stderr


def test_saved_conversations_are_readable(repl, tmp_path):
    repl.turns = [Turn("问", "答\n")]
    repl.handle(f"/save {tmp_path / 'a.json'}")
    written = (tmp_path / "a.json").read_text()
    assert json.loads(written) == {"turns": [{"query": "问", "answer": "答\n"}]} and "问" in written


def test_messages_of_several_lines():
    def read(*lines: str) -> str:
        remaining = iter(lines)

        def ask(_prompt: str) -> str:
            line = next(remaining, None)
            if line is None:
                raise EOFError
            return line

        return read_message(ask)

    assert read("one\n", "two\n") == "one"
    assert read('"""\n', "one\n", "  two\n", '"""\n', "three") == "one\n  two"
    assert read('"""one', 'two"""') == "one\ntwo"
    assert read('"""one') == "one"
    assert read("  /not a command") == "  /not a command"
    with pytest.raises(EOFError):
        read()


def test_an_answer_in_a_terminal_is_markdown(session):
    console = Console(file=io.StringIO(), force_terminal=True, width=60)
    repl = ChatRepl(session, GREEDY, console=console)
    repl.handle("hi")
    reply = session.answer([], "hi", GREEDY)
    assert "".join(reply.text.split()) in "".join(shown(repl).split())
    assert repl.turns == [Turn("hi", reply.text)]


def test_an_interrupted_answer_is_kept_as_far_as_it_went(session, capsys, monkeypatch):
    repl = ChatRepl(session, GREEDY, console=Console(file=io.StringIO()))
    full = session.answer([], "hi", GREEDY).text
    written = repl._write

    def interrupted(reply, pieces):
        next(pieces)
        raise KeyboardInterrupt

    monkeypatch.setattr(repl, "_write", interrupted)
    repl.handle("hi")
    [turn] = repl.turns
    assert turn.query == "hi" and full.startswith(turn.answer) and turn.answer
    assert "stopped" in capsys.readouterr().err
    monkeypatch.setattr(repl, "_write", written)
    repl.handle("/new")
    repl.handle("hi")
    assert repl.turns[0].answer == full
