"""`glm-jax evaluate --task=all`: one table of every task whose files are there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from glm_jax.cli import evaluate_all
from glm_jax.cli.found_tasks import find_tasks
from glm_jax.cli.main import main
from tests.serve.tiny_checkpoint import write_checkpoint

RTE = {"premise": "a", "hypothesis": "b", "label": "entailment", "idx": 0}
SETTINGS = (
    "task.sequence_length=48",
    "task.multi_token=True",
    "seq2seq.source_length=40",
    "seq2seq.target_length=8",
    "generation.beams=2",
    "language_model.sequence_length=32",
)
FLAGS = [f"--gin.{setting}" for setting in SETTINGS]


def write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("all") / "tiny")


@pytest.fixture
def data(tmp_path) -> Path:
    folder = tmp_path / "data"
    write(folder / "RTE/val.jsonl", json.dumps(RTE) + "\n")
    write(folder / "CNN-DM/val.source", "the ferry left\n")
    write(folder / "CNN-DM/val.target", "it left\n")
    write(folder / "ptb/ptb.test.txt", "some words of a text\n")
    write(folder / "xsum/val.source", "no files of xsum\n")
    write(folder / "notes.txt", "no folder")
    return folder


def evaluate_all_tasks(checkpoint, data, *flags: str) -> int:
    outputs = f"--outputs={data.parent / 'all'}"
    command = ["evaluate", str(checkpoint), "--task=all", f"--data={data}", outputs]
    return main([*command, *FLAGS, *flags])


def test_one_table_of_all_tasks(checkpoint, data, capsys, monkeypatch):
    assert evaluate_all_tasks(checkpoint, data) == 0
    shown = capsys.readouterr().out
    results = json.loads((data.parent / "all/results.json").read_text())
    tasks = ["rte", "cnn_dm", "cnn_dm_original", "ptb"]
    assert list(results["tasks"]) == tasks and results["failed"] == {}
    assert 0 <= results["tasks"]["rte"]["metrics"]["accuracy"] <= 100
    low, high = results["tasks"]["cnn_dm"]["intervals"]["rouge-1"]
    assert low <= results["tasks"]["cnn_dm"]["metrics"]["rouge-1"] <= high
    assert results["missing"]["xsum"] == "https://github.com/EdinburghNLP/XSum"
    table = (data.parent / "all/results.md").read_text()
    for text in (shown, table):
        assert [text.find(f"{task} ") >= 0 for task in tasks] == [True] * 4
        assert "copa, wsc, wsc1" in text and "(https://super.gluebenchmark.com/tasks)" in text
        assert "xsum (https://github.com/EdinburghNLP/XSum)" in text
    assert "| rte | dev | accuracy | " in table
    assert len((data.parent / "all/cnn_dm_dev.jsonl").read_text().splitlines()) == 2

    # What is done is not done again.
    monkeypatch.setattr(evaluate_all, "evaluate_by_kind", None)
    assert evaluate_all_tasks(checkpoint, data, "--json") == 0
    found = capsys.readouterr()
    assert json.loads(found.out) == results and found.err.count(": is done") == 4
    assert evaluate_all_tasks(checkpoint, data, "--gin.generation.beams=3") == 2
    assert "has results for settings = " in capsys.readouterr().err


def test_a_failing_task_is_named_and_stops_no_other(checkpoint, data, capsys, monkeypatch):
    write(data / "RTE/val.jsonl", json.dumps(RTE | {"label": "maybe"}) + "\n")
    evaluate = evaluate_all.evaluate_by_kind

    def failing(asked):
        if asked.task == "cnn_dm":
            raise RuntimeError("out of\nmemory")
        return evaluate(asked)

    monkeypatch.setattr(evaluate_all, "evaluate_by_kind", failing)
    assert evaluate_all_tasks(checkpoint, data) == 1
    found = capsys.readouterr()
    assert "2 of 4 tasks failed: rte, cnn_dm" in found.err.splitlines()[-1]
    assert "cnn_dm failed: RuntimeError: out of memory" in found.out
    results = json.loads((data.parent / "all/results.json").read_text())
    assert list(results["tasks"]) == ["cnn_dm_original", "ptb"]
    assert "has the label 'maybe'" in results["failed"]["rte"]
    assert "rte failed: example" in (data.parent / "all/results.md").read_text()

    # Repaired, they alone are evaluated.
    write(data / "RTE/val.jsonl", json.dumps(RTE) + "\n")
    monkeypatch.setattr(evaluate_all, "evaluate_by_kind", evaluate)
    assert evaluate_all_tasks(checkpoint, data) == 0
    found = capsys.readouterr()
    assert found.err.count(": is done") == 2 and "failed" not in found.out
    assert json.loads((data.parent / "all/results.json").read_text())["failed"] == {}


def test_tasks_are_found_by_the_names_of_folders(tmp_path):
    write(tmp_path / "SST-2/dev.tsv", "")
    write(tmp_path / "MNLI/dev_matched.tsv", "")
    write(tmp_path / "MNLI/dev_mismatched.tsv", "")
    write(tmp_path / "AX-b/AX-b.jsonl", "")
    write(tmp_path / "squad/dev-v1.1.json", "")
    write(tmp_path / "customization/val.jsonl", "")
    write(tmp_path / "lambada/own.jsonl", "")
    write(tmp_path / "multichoice/any.jsonl", "")
    found = find_tasks(tmp_path, "dev")
    names = {"sst2", "mnli", "mnli-mm", "ax-b", "squad_v1", "customization", "lambada"}
    assert set(found.data) == names | {"multichoice"}
    assert found.data["lambada"].endswith("own.jsonl")
    assert {"squad", "xsum", "boolq", "wikitext"} <= set(found.missing)
    assert found.missing["wikitext"].startswith("https://")


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--data=nowhere"], "is not a folder"),
        (["--gin.data.store=x"], "no task has the section of 'data.store=x'"),
        (["--picture=x.png"], "--picture is not for --task=all"),
        (["--num_batches=3"], "--num_batches is not for --task=all"),
        (["--distributed"], "evaluation in several processes is for tasks that write texts"),
        (["--split=valid"], "--split is 'valid'; expected one of train, dev, test, unlabeled"),
    ],
)
def test_bad_usage_is_one_sentence(checkpoint, data, capsys, flags, sentence):
    assert evaluate_all_tasks(checkpoint, data, *flags) == 2
    error = capsys.readouterr().err
    assert sentence in error and error.count("\n") == 1, error
    assert not (data.parent / "all").exists()


def test_a_damaged_or_foreign_file_of_results_is_refused(checkpoint, data, capsys):
    write(data.parent / "all/results.json", "[]")
    assert evaluate_all_tasks(checkpoint, data) == 2
    assert "results.json has no results of all tasks" in capsys.readouterr().err
    (data.parent / "empty").mkdir()
    assert evaluate_all_tasks(checkpoint, data.parent / "empty") == 2
    error = capsys.readouterr().err
    assert "has no sub-folder with the files of a task, such as" in error
    assert main(["evaluate", str(checkpoint), "--task=all"]) == 2
    assert "--task=all needs --data" in capsys.readouterr().err
