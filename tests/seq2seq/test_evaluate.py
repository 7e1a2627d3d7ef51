"""`glm-jax evaluate --task` of tasks that write texts, and what it refuses."""

from __future__ import annotations

import json
from typing import ClassVar

import pytest

from glm_jax.cli.main import main
from glm_jax.errors import UsageError
from glm_jax.seq2seq.read import check_tokenizer
from glm_jax.seq2seq.rouge import rouge_scores
from tests.serve.tiny_checkpoint import write_checkpoint

SOURCES = ["the ferry left at dawn", "rain fell all day", "a dog", "the long way to the sea"]
TARGETS = ["ferry left", "rain", "dog", "way to the sea"]
LENGTHS = ("--gin.seq2seq.source_length=40", "--gin.seq2seq.target_length=8")
SMALL = (*LENGTHS, "--gin.generation.beams=2", "--gin.generation.batch_size=2")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("seq2seq") / "checkpoint")


def write_pairs(folder, name="val", sources=SOURCES, targets=TARGETS):
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.source").write_text("".join(f"{text}\n" for text in sources))
    if targets is not None:
        (folder / f"{name}.target").write_text("".join(f"{text}\n" for text in targets))
    return folder


def evaluate(checkpoint, task, data, tmp_path, *more) -> int:
    outputs = f"--outputs={tmp_path / 'outputs.jsonl'}"
    command = ["evaluate", str(checkpoint), f"--task={task}", f"--data={data}", outputs, *more]
    return main(command)


def read_lines(tmp_path) -> list[dict]:
    return [json.loads(line) for line in (tmp_path / "outputs.jsonl").read_text().splitlines()]


def test_outputs_are_written_judged_and_continued(checkpoint, tmp_path, capsys):
    data = write_pairs(tmp_path / "data")
    assert evaluate(checkpoint, "customization", data, tmp_path, *SMALL, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    _, *written = read_lines(tmp_path)
    assert [line["id"] for line in written] == [f"dev-{n}" for n in range(4)]
    assert all(len(line["ids"][0]) <= 8 for line in written)
    texts = [line["texts"][0] for line in written]
    for name, scores in rouge_scores(texts, TARGETS).items():
        assert found[name] == pytest.approx(sum(scores) / 4)
        low, high = found["intervals"][name]
        assert low <= found[name] <= high
    assert found["num_outputs"] == 4 and 0 < found["wasted"] < 1

    # Half of the outputs are lost; those that are left are not written again.
    lines = (tmp_path / "outputs.jsonl").read_text().splitlines(keepends=True)
    marked = json.dumps({**written[0], "texts": ["kept"]}) + "\n"
    (tmp_path / "outputs.jsonl").write_text(lines[0] + marked + lines[2] + '{"id": "de')
    assert evaluate(checkpoint, "customization", data, tmp_path, *SMALL) == 0
    shown = capsys.readouterr()
    assert "rouge-l" in shown.out and "4 of 4 outputs" in shown.err
    assert [line["texts"] for line in read_lines(tmp_path)[1:]] == [
        ["kept"],
        *[line["texts"] for line in written[1:]],
    ]
    assert evaluate(checkpoint, "customization", data, tmp_path, *SMALL, "--split=train") == 2
    write_pairs(data, "train")
    capsys.readouterr()
    assert evaluate(checkpoint, "customization", data, tmp_path, *SMALL, "--split=train") == 2
    assert "split = 'dev', not 'train'" in capsys.readouterr().err


def test_a_test_split_without_targets_has_outputs_and_no_metrics(checkpoint, tmp_path, capsys):
    data = write_pairs(tmp_path / "data", "test", targets=None)
    more = (*SMALL, "--split=test", "--json")
    assert evaluate(checkpoint, "customization", data, tmp_path, *more) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["intervals"] == {} and found["num_outputs"] == 4
    assert len(read_lines(tmp_path)) == 5


def test_padding_of_sources_that_is_seen_changes_outputs(checkpoint, tmp_path):
    data = write_pairs(tmp_path / "data")
    scores = []
    for setting in ("True", "False"):
        (tmp_path / "outputs.jsonl").unlink(missing_ok=True)
        more = (*SMALL, f"--gin.seq2seq.pad_source={setting}")
        assert evaluate(checkpoint, "customization", data, tmp_path, *more) == 0
        scores.append([line["score"] for line in read_lines(tmp_path)[1:]])
    assert scores[0] != scores[1]


def test_answers_of_windows(checkpoint, tmp_path, capsys):
    answers = [{"text": "dawn", "answer_start": 18}]
    question = {"id": "q", "question": "when", "answers": answers}
    paragraph = {"context": "the ferry left at dawn and came back", "qas": [question]}
    data = {"data": [{"paragraphs": [paragraph]}]}
    (tmp_path / "dev-v2.0.json").write_text(json.dumps(data))
    assert evaluate(checkpoint, "squad", tmp_path, tmp_path, *SMALL, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["num_outputs"] == 2 and set(found["intervals"]) == {"EM", "F1"}


def test_several_blanks(checkpoint, tmp_path):
    write_pairs(tmp_path, "valid", ["a [MASK] b [MASK] c"], ["x|y"])
    assert evaluate(checkpoint, "extraction", tmp_path, tmp_path, *SMALL) == 0
    assert len(read_lines(tmp_path)[1]["texts"]) == 2


def test_tokenizers_without_the_mask_are_refused():
    class NoMask:
        special: ClassVar = {name: 1 for name in ("ENC", "eos", "sop", "eop", "pad")}

    with pytest.raises(UsageError, match="no token MASK"):
        check_tokenizer(NoMask())  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("sources", "targets", "more", "sentence"),
    [
        (None, None, (), "val.source is missing"),
        (["a", " ", "b"], ["x", "y", "z"], (), "line 2: the source is empty"),
        (["a", "b"], ["x"], (), "each source needs its target"),
        (["a", "b"], ["x", ""], (), "has no reference, but others have one"),
        (SOURCES, TARGETS, ("--gin.seq2seq.target_length=40",), "80 positions, but the network"),
        (SOURCES, TARGETS, ("--gin.generation.min_length=9",), "generation.min_length is 9"),
        (SOURCES, TARGETS, ("--split=validation",), "the split is 'validation'"),
        (SOURCES, TARGETS, ("--picture=x.png",), "--picture is not for --task=customization"),
        (SOURCES, TARGETS, ("--gin.generation.batch_size=0",), "generation.batch_size is 0"),
    ],
)
def test_bad_input_is_one_sentence(checkpoint, tmp_path, capsys, sources, targets, more, sentence):
    data = tmp_path / "data"
    data.mkdir()
    if sources is not None:
        write_pairs(data, "val", sources, targets)
    assert evaluate(checkpoint, "customization", data, tmp_path, *SMALL, *more) == 2
    error = capsys.readouterr().err
    assert sentence in error and error.count("\n") == 1, error
    assert not (tmp_path / "outputs.jsonl").exists()
