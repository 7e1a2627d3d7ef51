"""Finetuning that learns to write texts: what it writes, resumes, and refuses."""

from __future__ import annotations

import json

import numpy as np
import pytest

from glm_jax.cli.main import main
from glm_jax.cluster.preemption import StopRequest
from glm_jax.seq2seq.pairs import EncodedPairs
from glm_jax.seq2seq.registry import SEQ2SEQ_TASKS
from glm_jax.seq2seq.rows import RowLayout
from glm_jax.tasks import Example
from glm_jax.train.metrics import read_metrics
from tests.seq2seq.test_evaluate import SOURCES, TARGETS
from tests.serve.tiny_checkpoint import byte_tokenizer


@pytest.fixture(scope="module")
def folder(tiny_pairs):
    return tiny_pairs


def finetune(folder, run, *settings) -> int:
    flags = [f"--gin.{setting}" for setting in (f"finetune.run_folder={run}", *settings)]
    return main(["finetune", f"--gin_file={folder / 'run.gin'}", *flags])


def losses(run) -> list[float]:
    return [r["loss"] for r in read_metrics(run / "metrics.jsonl") if r["kind"] == "train"]


def test_a_run_writes_results_outputs_and_a_checkpoint_that_evaluates(folder, tmp_path, capsys):
    run = tmp_path / "run"
    assert finetune(folder, run) == 0
    results = json.loads((run / "results.json").read_text())
    evaluations = [r for r in read_metrics(run / "metrics.jsonl") if r["kind"] == "validation"]
    assert [r["step"] for r in evaluations] == [2, 4]
    assert results["rouge-1"] == max(r["rouge-1"] for r in evaluations)
    outputs = [json.loads(line) for line in (run / "predictions.jsonl").open()]
    assert [output["id"] for output in outputs] == [f"dev-{n}" for n in range(4)]
    capsys.readouterr()
    # The run knows how its checkpoints read and write.
    command = ["evaluate", str(run), "--task=customization", "--json"]
    assert main([*command, f"--outputs={tmp_path / 'outputs.jsonl'}"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["rouge-1"] == pytest.approx(results["rouge-1"])
    lines = (tmp_path / "outputs.jsonl").read_text().splitlines()[1:]
    assert [json.loads(line)["ids"] for line in lines] == [output["ids"] for output in outputs]


@pytest.mark.slow
def test_a_stopped_run_resumes(folder, tmp_path, monkeypatch, capsys):
    assert finetune(folder, tmp_path / "run") == 0
    with monkeypatch.context() as patch:
        patch.setattr(StopRequest, "asked", lambda self, at: at == 3)
        assert finetune(folder, tmp_path / "stopped") == 0
    assert finetune(folder, tmp_path / "stopped") == 0
    assert losses(tmp_path / "stopped") == losses(tmp_path / "run")
    capsys.readouterr()
    assert finetune(folder, tmp_path / "stopped", "seq2seq.target_length=12") == 2
    assert "seq2seq.target_length is 12, but the run in" in capsys.readouterr().err


@pytest.mark.slow
def test_an_overfitted_network_writes_its_training_summaries(folder, tmp_path):
    run = tmp_path / "run"
    more = ["finetune.epochs=150", "finetune.evaluate_every_epochs=150", "finetune.batch_size=4"]
    assert finetune(folder, run, *more, "checkpoint.every=1000") == 0
    assert json.loads((run / "results.json").read_text())["rouge-l"] > 0.95


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (["lora.rank=2"], "lora.rank is set, which tasks that write texts do not have"),
        (["generation.min_length=17"], "generation.min_length is 17"),
        (["seq2seq.label_smoothing=1.0"], "seq2seq.label_smoothing is 1.0"),
        (["seq2seq.name=xsums"], "seq2seq.name is 'xsums'"),
        (["seq2seq.data=nowhere"], "is not a folder"),
        (["task.name=rte"], "task.name is set, but this command has the sections"),
    ],
)
def test_bad_input_is_one_sentence(folder, tmp_path, capsys, settings, sentence):
    assert finetune(folder, tmp_path / "run", *settings) == 2
    error = capsys.readouterr().err
    assert sentence in error and error.count("\n") == 1, error
    assert not (tmp_path / "run").exists()


def test_batches_have_the_rows_padded_to_a_bucket():
    tokenizer = byte_tokenizer()
    layout = RowLayout(tokenizer.special, 96, 32)
    examples = [Example(str(n), *pair) for n, pair in enumerate(zip(SOURCES, TARGETS, strict=True))]
    pairs = EncodedPairs(SEQ2SEQ_TASKS["customization"], examples, tokenizer, layout)
    batch = pairs.batch(np.asarray([2, 1, 3]), 4)
    assert batch["tokens"].shape == (4, 64) and batch["position_ids"].shape == (4, 2, 64)
    assert not batch["loss_mask"][3].any()
    for row, index in enumerate([2, 1, 3]):
        learnt = batch["targets"][row][batch["loss_mask"][row] == 1].tolist()
        expected = [*tokenizer.encode(" " + TARGETS[index]), tokenizer.special["eop"]]
        assert learnt == expected
        prefix = batch["prefix_length"][row]
        assert batch["tokens"][row, prefix] == tokenizer.special["sop"]


def test_a_task_without_metrics_trains_without_evaluations(folder, tmp_path, capsys):
    data = tmp_path / "data"
    data.mkdir()
    line = "a b c d e f g h i j k\n"  # a tenth of ten words is one blank
    (data / "train.txt").write_text("too short\n" + line * 3)
    settings = ["seq2seq.name=blank", f"seq2seq.data={data}"]
    assert finetune(folder, tmp_path / "run", *settings) == 0
    assert "3 train examples" in capsys.readouterr().out
    assert len(losses(tmp_path / "run")) == 4
    results = json.loads((tmp_path / "run/results.json").read_text())
    assert results["task"] == "blank" and results["steps"] == 4


def test_answers_in_windows_are_learnt(folder, tmp_path):
    answers = [{"text": "dawn", "answer_start": 18}]
    question = {"id": "q", "question": "when", "answers": answers}
    paragraph = {"context": "the ferry left at dawn and came back", "qas": [question]}
    for split in ("train", "dev"):
        data = {"data": [{"paragraphs": [paragraph]}]}
        (tmp_path / f"{split}-v1.1.json").write_text(json.dumps(data))
    more = ["seq2seq.name=squad_v1", f"seq2seq.data={tmp_path}"]
    assert finetune(folder, tmp_path / "run", *more) == 0
    assert {"F1", "EM"} <= set(json.loads((tmp_path / "run/results.json").read_text()))
