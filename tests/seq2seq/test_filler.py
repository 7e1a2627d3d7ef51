"""`glm-jax fill` and `serve` with finetuned checkpoints: they do what the run was trained for."""

from __future__ import annotations

import json
import shutil

import pytest

from glm_jax.cli.main import main
from glm_jax.cli.serve import limits_for
from glm_jax.convert.load import load_glm
from glm_jax.errors import UsageError
from glm_jax.finetune.recorded import best_checkpoint
from glm_jax.generate.fill import FilledText, Filler
from glm_jax.generate.settings import Sampling
from glm_jax.seq2seq.config import GenerationConfig, Seq2SeqConfig
from glm_jax.seq2seq.filler import TaskFiller
from glm_jax.tokenizer import load_tokenizer
from tests.conftest import HANG_SECONDS
from tests.seq2seq.test_evaluate import SOURCES
from tests.serve.running import serving

GENERATION = GenerationConfig(beams=2, no_repeat_ngram=0)


@pytest.fixture(scope="module")
def written(trained_run, tmp_path_factory) -> list[str]:
    """What an evaluation of the run writes for `SOURCES`."""
    outputs = tmp_path_factory.mktemp("outputs") / "outputs.jsonl"
    command = ["evaluate", str(trained_run), "--task=customization", f"--outputs={outputs}"]
    assert main(command) == 0
    return [json.loads(line)["texts"][0] for line in outputs.read_text().splitlines()[1:]]


@pytest.fixture(scope="module")
def make_filler(trained_run):
    model, params = load_glm(best_checkpoint(trained_run))
    tokenizer = load_tokenizer(trained_run)

    def make(task: str, **settings) -> TaskFiller:
        lengths = {"source_length": 40, "target_length": 8, **settings}
        return TaskFiller(model, params, tokenizer, Seq2SeqConfig(task, "", **lengths), GENERATION)

    return make


def fill(capsys, *arguments) -> list[dict]:
    capsys.readouterr()
    assert main(["fill", *map(str, arguments), "--json"]) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_fill_writes_what_an_evaluation_does(trained_run, written, capsys):
    found = fill(capsys, trained_run, *SOURCES)
    assert [line["text"] for line in found] == written
    assert all(len(line["blanks"]) == 1 and line["blanks"][0]["score"] for line in found)
    assert [line["blanks"][0]["text"] for line in found] == written


def test_a_moved_run_and_one_of_its_checkpoints_know_it_too(trained_run, written, tmp_path, capsys):
    moved = tmp_path / "moved"
    shutil.copytree(trained_run, moved)
    assert fill(capsys, moved, SOURCES[0])[0]["text"] == written[0]
    step = max((moved / "checkpoints").glob("[0-9]*"), key=lambda path: int(path.name))
    tokenizer = f"--tokenizer={moved}"
    (found,) = fill(capsys, step, SOURCES[0], tokenizer)
    assert found["blanks"][0]["score"] is not None


def test_given_settings_win_over_those_of_the_run(trained_run, capsys):
    (found,) = fill(capsys, trained_run, SOURCES[0], "--max_blank_length=3")
    assert len(found["blanks"][0]["ids"]) <= 3 and found["blanks"][0]["alternatives"]
    (drawn,) = fill(capsys, trained_run, SOURCES[0], "--samples=2", "--seed=1")
    assert len(drawn["samples"]) == 2 and drawn["blanks"][0]["score"] is None


def test_texts_with_blanks_are_filled(trained_run, capsys, make_filler):
    text = "the [MASK] left"
    (found,) = fill(capsys, trained_run, text, "--max_blank_length=4")
    filler = make_filler("customization")
    assert found["text"] == Filler.fill(filler, [text], Sampling(max_blank_length=4))[0].text
    assert found["text"].endswith(" left")
    assert found["blanks"][0]["score"] is None


def test_lines_of_a_file_are_written_for_and_bad_ones_named(trained_run, written, tmp_path, capsys):
    (tmp_path / "texts.txt").write_text(f"{SOURCES[0]}\nthe [MASK] left\n{SOURCES[1]}\n")
    found = fill(capsys, trained_run, f"--file={tmp_path / 'texts.txt'}")
    assert [found[0]["text"], found[2]["text"]] == written[:2]
    assert found[1]["text"].endswith(" left")


def test_weights_without_a_run_continue_a_text(trained_run, tmp_path, capsys):
    exported = tmp_path / "exported"
    assert main(["convert", str(trained_run), str(exported), "--to", "huggingface"]) == 0
    flags = [f"--tokenizer={trained_run}", "--num_attention_heads=2", "--max_blank_length=4"]
    (found,) = fill(capsys, exported, SOURCES[0], *flags)
    assert found["text"].startswith(SOURCES[0])


def test_an_interactive_line_is_an_input(make_filler, capsys):
    from rich.console import Console

    from glm_jax.cli.fill_repl import show, stream

    filler = make_filler("customization")
    sampling = filler.sampling("", {})
    assert (sampling.beams, sampling.max_blank_length) == (2, 8)
    (expected,) = filler.fill([SOURCES[0]], sampling)
    show(filler, SOURCES[0], sampling, Console())
    assert capsys.readouterr().out.splitlines()[0] == expected.text
    stream(filler, SOURCES[0], Sampling(max_blank_length=8), Console())
    (expected,) = filler.fill([SOURCES[0]], Sampling(max_blank_length=8))
    assert capsys.readouterr().out == expected.text + "\n"


@pytest.mark.parametrize("task", ["squad", "cmrc", "squad_generation"])
def test_tasks_of_several_inputs_take_an_object(make_filler, task):
    filler = make_filler(task)
    names = filler.trained_for["inputs"]
    text = json.dumps(dict.fromkeys(names, "the ferry left at dawn"))
    (found,) = filler.fill([text], filler.sampling(text, {}))
    assert found.text and len(found.blanks) == 1
    for bad in (SOURCES[0], "{", '{"context": "a"}', json.dumps(dict.fromkeys(names, 1)), "[]"):
        with pytest.raises(UsageError, match=f"task {task} takes a JSON object with texts"):
            filler.fill([bad], Sampling())
    empty = json.dumps(dict.fromkeys(names, " "))
    with pytest.raises(UsageError, match=f"of task {task} is empty"):
        filler.fill([empty], Sampling())


def test_long_passages_are_read_in_windows(make_filler):
    filler = make_filler("squad", source_length=24)
    text = json.dumps({"context": "the ferry left at dawn and came back", "question": "when"})
    assert filler.is_read_in_windows(text) and len(filler._readings(text)) > 1
    sampling = Sampling(beams=2, max_blank_length=8)
    (found,) = filler.fill([text], sampling)
    windows = filler.fill_read(filler._readings(text), sampling)
    assert found.text in [window.text for window in windows]
    # The first answer among the windows' that is one.
    none, some = FilledText("n/a", found.blanks), FilledText("dawn", found.blanks)
    assert filler._chosen(text, [none, some, found]).text == "dawn"
    assert filler._chosen(text, [none, none]).text == "n/a"
    with pytest.raises(UsageError, match="answers are scored in one window only"):
        filler.score([text], [["a"]])


def test_several_blanks_are_filled_as_the_task_does(make_filler):
    filler = make_filler("blank")
    sampling = filler.sampling("a [MASK] b [MASK] c", {})
    (found,) = filler.fill(["a [MASK] b [MASK] c"], sampling)
    assert len(found.blanks) == 2 and found.blanks[0].score is not None
    for text, sentence in (("no blank", "has no"), ("a [MASK] [sMASK]", "fills .MASK. only")):
        with pytest.raises(UsageError, match=sentence):
            filler.fill([text], sampling)


def test_a_server_says_what_the_model_was_trained_for(make_filler):
    filler = make_filler("customization")
    (expected,) = filler.fill([SOURCES[0]], filler.sampling(SOURCES[0], {}))
    with serving(filler) as server:
        facts = server.get("/v1/model").json()["trained_for"]
        assert facts["task"] == "customization" and facts["inputs"] == ["text"]
        assert facts["sampling"]["beams"] == 2 and facts["sampling"]["max_blank_length"] == 8
        answer = server.fill(SOURCES[0])
        assert answer["text"] == expected.text and answer["blanks"][0]["score"] is not None
        assert server.fill("the [MASK] left", max_blank_length=3)["text"].endswith(" left")
        greedy = server.fill(SOURCES[0], beams=1, top=1)
        (alone,) = filler.fill([SOURCES[0]], Sampling(max_blank_length=8))
        assert greedy["text"] == alone.text and greedy["blanks"][0]["top"]
        response = server.post("/v1/fill", {"text": SOURCES[0], "stream": True, "beams": 1})
        assert '"parts":["",""]' in response.text and "event: done" in response.text


def test_a_server_takes_inputs_and_reads_windows(make_filler):
    filler = make_filler("squad", source_length=24)
    inputs = {"context": "the ferry left at dawn and came back", "question": "when"}
    text = json.dumps(inputs)
    (expected,) = filler.fill([text], filler.sampling(text, {"beams": 1}))
    with serving(filler) as server:
        response = server.post("/v1/fill", {"input": inputs, "beams": 1})
        assert response.json()["text"] == expected.text
        for body, field, sentence in (
            ({"input": inputs, "beams": 1, "stream": True}, "stream", "read in windows"),
            ({"input": inputs, "text": "a"}, "input", "exclude each other"),
            ({"input": "a"}, "input", "must be a JSON object"),
            ({"text": "a"}, "text", "takes a JSON object with texts"),
        ):
            error = server.post("/v1/fill", body)
            assert error.status_code == 400, body
            assert error.json()["error"]["field"] == field
            assert sentence in error.json()["error"]["message"]


def test_the_command_serves_what_a_run_was_trained_for(trained_run, monkeypatch, capsys):
    def ended(server, worker, bound) -> None:
        server._on_started()
        worker.close()
        worker.abandon()
        assert worker.join(HANG_SECONDS)
        bound.close()

    monkeypatch.setattr("glm_jax.serve.server.serve", ended)
    assert main(["serve", str(trained_run), "--port=0", "--rows=1", "--max_slots=64"]) == 0
    assert "parameters finetuned for customization, on http://127.0.0.1:" in capsys.readouterr().out


def test_a_server_allows_what_a_run_was_trained_for():
    search = {"beams": 12, "max_blank_length": 160}
    assert limits_for({"source_length": 1000, "sampling": search}, 512) == {
        "max_beams": 12,
        "max_slots": 1161,
    }
    assert limits_for({}, 512) == {"max_beams": 8, "max_slots": 1024}
    assert limits_for({}, 2048)["max_slots"] == 2048
