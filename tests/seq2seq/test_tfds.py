"""Data sets that TFDS prepared give what the official files with the same texts give."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from glm_jax.cli.main import main
from glm_jax.errors import UsageError
from glm_jax.seq2seq.config import Seq2SeqConfig
from glm_jax.seq2seq.read import read_split, read_stored
from glm_jax.seq2seq.registry import SEQ2SEQ_TASKS
from glm_jax.tasks.example import Example
from tests.seq2seq.test_evaluate import SMALL, write_pairs
from tests.serve.tiny_checkpoint import byte_tokenizer

tfds = pytest.importorskip("tensorflow_datasets")

ARTICLES = ["The “ferry” did n't leave .\nIt left -LRB- at dawn -RRB- .", "Rain fell\nall day ."]
HIGHLIGHTS = ["Ferry left .\nAt `` dawn '' .", "It rained ."]
SPLITS = {"train": "train", "validation": "val", "test": "test"}


@pytest.fixture
def prepare(tmp_path, monkeypatch) -> Callable[[str, dict], str]:
    """Lets TFDS's own builder, with its features, store examples of the three splits."""
    monkeypatch.setattr(tfds.core.constants, "DATA_DIR", str(tmp_path / "tfds"))

    def prepare(name: str, splits: dict[str, list[dict]]) -> str:
        builder = tfds.builder(name, data_dir=str(tmp_path / "tfds"), try_gcs=False)

        def generators(_self, _downloads):
            return {split: list(enumerate(rows)) for split, rows in splits.items()}

        with monkeypatch.context() as patch:
            patch.setattr(type(builder), "_split_generators", generators)
            builder.download_and_prepare()
        return f"tfds:{name}"

    return prepare


def read(task: str, data, split: str) -> list[Example]:
    return read_split(Seq2SeqConfig(task, str(data), source_length=200), split, byte_tokenizer())


def texts(examples: list[Example]) -> list[tuple]:
    """TFDS stores examples in an order of its own."""
    return sorted((example.text_a, str(example.text_b)) for example in examples)


@pytest.mark.parametrize("task", ["cnn_dm", "cnn_dm_original"])
def test_cnn_dailymail(prepare, tmp_path, task):
    rows = [
        {"article": article, "highlights": summary, "publisher": "cnn", "id": str(number)}
        for number, (article, summary) in enumerate(zip(ARTICLES, HIGHLIGHTS, strict=True))
    ]
    source = prepare("cnn_dailymail", dict.fromkeys(SPLITS, rows))
    separator = " <S_SEP> " if task == "cnn_dm" else " "
    lines = [article.replace("\n", " ") for article in ARTICLES]
    summaries = [summary.replace("\n", separator) for summary in HIGHLIGHTS]
    for split in SPLITS.values():
        write_pairs(tmp_path / "files", split, lines, summaries)
    for split in ("train", "dev", "test"):
        found = read(task, source, split)
        assert texts(found) == texts(read(task, tmp_path / "files", split))
        assert {example.guid for example in found} == {f"{split}-0", f"{split}-1"}


def test_gigaword(prepare, tmp_path):
    pairs = {"document": "the UNK -lrb- ferry -rrb- &amp; left", "summary": "ferry <unk>"}
    source = prepare("gigaword", {key: [pairs] for key in SPLITS})
    write_pairs(tmp_path / "files", "val", [pairs["document"]], [pairs["summary"]])
    assert texts(read("gigaword", source, "dev")) == texts(
        read("gigaword", tmp_path / "files", "dev")
    )


def test_xsum(prepare, tmp_path):
    source = prepare("xsum", {"test": [{"document": "A ferry.\n It left.", "summary": "Left.\n"}]})
    (example,) = read("xsum", source, "test")
    assert (example.text_a, example.text_b) == ("A ferry. It left.", "Left.")
    with pytest.raises(UsageError, match="no split for 'dev' of task xsum; splits found: test"):
        read("xsum", source, "dev")


@pytest.mark.parametrize(("task", "version"), [("squad", "v2.0"), ("squad_v1", "v1.1")])
def test_squad(prepare, tmp_path, task, version):
    rows, questions = [], []
    for number, answers in enumerate((["dawn", "at dawn"], [] if task == "squad" else ["back"])):
        starts = [0] * len(answers)
        row: dict[str, Any] = {
            "id": f"q{number}",
            "title": "t",
            "context": "It left at dawn.",
            "question": "when",
        }
        row["answers"] = {"text": answers, "answer_start": starts}
        if task == "squad":
            row |= {"is_impossible": not answers, "plausible_answers": {"text": [],
                    "answer_start": []}}  # fmt: skip
        rows.append(row)
        found = [{"text": text, "answer_start": 0} for text in answers]
        questions.append({"id": f"q{number}", "question": "when", "answers": found})
    source = prepare(f"squad/{version}", dict.fromkeys(("train", "validation"), rows))
    data = {"data": [{"paragraphs": [{"context": "It left at dawn.", "qas": questions}]}]}
    for split in ("train", "dev"):
        (tmp_path / f"{split}-{version}.json").write_text(json.dumps(data))
    for split in ("train", "dev", "test"):
        found, expected = read(task, source, split), read(task, tmp_path, split)
        key = lambda example: (example.idx, example.text_a)  # noqa: E731
        assert [(key(e), e.meta) for e in sorted(found, key=key)] == [
            (key(e), e.meta) for e in sorted(expected, key=key)
        ]


def test_questions_to_generate(prepare):
    row = {"context_passage": "It left at dawn.", "answer": "dawn", "question": "when"}
    source = prepare("squad_question_generation/split_du", {key: [row] for key in SPLITS})
    (example,) = read("squad_generation", source, "dev")
    assert example.text_a == "It left at dawn."
    assert example.meta == {"question": "when", "answer": "dawn"}


def test_a_command_takes_a_data_set(prepare, tiny_pairs, tmp_path, capsys):
    source = prepare("gigaword", {"validation": [{"document": "a ferry left", "summary": "left"}]})
    command = ["evaluate", str(tiny_pairs / "checkpoint"), "--task=gigaword", f"--data={source}"]
    capsys.readouterr()
    assert main([*command, f"--outputs={tmp_path / 'out.jsonl'}", "--json", *SMALL]) == 0
    assert json.loads(capsys.readouterr().out)["num_outputs"] == 1
    assert main([*command, f"--outputs={tmp_path / 'o.jsonl'}", "--split=train", *SMALL]) == 2
    error = capsys.readouterr().err
    assert "no split for 'train' of task gigaword" in error and error.count("\n") == 1


def test_data_of_another_task_is_one_sentence(prepare):
    source = prepare("gigaword", {"validation": [{"document": "a ferry left", "summary": "left"}]})
    for task, sentence in (
        ("cnn_dm", "example 0: no field 'article'; found document, summary"),
        ("squad", "example 0: no field 'answers'; found document, summary"),
        ("customization", "example 0: no field 'source'"),
        ("blank", "task blank is read from files, and not from tfds:gigaword"),
    ):
        with pytest.raises(UsageError, match=sentence):
            read_stored(SEQ2SEQ_TASKS[task], source, "dev")
    with pytest.raises(UsageError, match="TFDS data set 'xsum' is not prepared in"):
        read("xsum", "tfds:xsum", "dev")
    with pytest.raises(UsageError, match="TFDS has no data set 'xsumm'"):
        read("xsum", "tfds:xsumm", "dev")
