"""Finetuning that learns to write texts: what it writes, resumes, and refuses."""

from __future__ import annotations

import functools
import itertools
import json

import jax
import numpy as np
import pytest

from glm_jax.checkpoints.checkpoints import Checkpoints
from glm_jax.cli.main import main
from glm_jax.cluster.preemption import StopRequest
from glm_jax.configure import read_configuration
from glm_jax.convert.load import load_glm
from glm_jax.finetune.batches import TrainingBatches
from glm_jax.finetune.lora import merge_adapters
from glm_jax.finetune.trainable import join
from glm_jax.seq2seq.config import Seq2SeqConfig, Seq2SeqRunConfig
from glm_jax.seq2seq.pairs import EncodedPairs, encode_pairs
from glm_jax.seq2seq.prepare import prepare_seq2seq
from glm_jax.seq2seq.read import read_split
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
        (["finetune.block_lm_ratio=1.0"], "finetune.block_lm_ratio is set, which tasks that write"),
        (["finetune.freeze_transformer=True"], "finetune.freeze_transformer is set"),
        (["finetune.max_train_examples=-1"], "finetune.max_train_examples is -1"),
        (["generation.beams=0"], "generation.beams is 0"),
        (["generation.min_length=17"], "generation.min_length is 17"),
        (["seq2seq.label_smoothing=1.0"], "seq2seq.label_smoothing is 1.0"),
        (["seq2seq.name=xsums"], "there is no task 'xsums'; did you mean xsum?"),
        (["seq2seq.data=tfds:xsumm"], "TFDS has no data set 'xsumm'"),
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


def test_adapters_learn_and_every_command_opens_the_run(folder, tmp_path, capsys):
    run = tmp_path / "run"
    settings = ("lora.rank=2", "optimizer.learning_rate=3e-2", "finetune.epochs=3")
    assert finetune(folder, run, *settings) == 0
    assert losses(run)[-1] < losses(run)[0]
    results = json.loads((run / "results.json").read_text())
    step = run / "checkpoints" / str(results["step"])
    saved = sum(file.stat().st_size for file in step.rglob("*") if file.is_file())
    (whole,) = (folder / "checkpoint/checkpoints").iterdir()
    assert saved < sum(file.stat().st_size for file in whole.rglob("*") if file.is_file())
    written = [json.loads(line)["texts"][0] for line in (run / "predictions.jsonl").open()]
    capsys.readouterr()
    command = ["evaluate", str(run), "--task=customization", "--json"]
    assert main([*command, f"--outputs={tmp_path / 'outputs.jsonl'}"]) == 0
    assert json.loads(capsys.readouterr().out)["rouge-1"] == pytest.approx(results["rouge-1"])
    assert main(["fill", str(run), *SOURCES]) == 0
    assert capsys.readouterr().out.splitlines() == written


def test_merged_adapters_are_the_network_that_a_checkpoint_is_loaded_as(folder, tmp_path):
    run = tmp_path / "run"
    assert finetune(folder, run, "lora.rank=2", "optimizer.learning_rate=3e-2") == 0
    config = read_configuration([run / "config.gin"], [], Seq2SeqRunConfig)
    ready = prepare_seq2seq(config)
    with Checkpoints(run / "checkpoints") as checkpoints:
        abstract = {"params": ready.program.abstract_state.params}
        trained = checkpoints.restore(4, abstract)["params"]
    merged = merge_adapters(join(trained, ready.frozen), config.lora)
    expected = load_glm(run)[1]
    assert jax.tree.structure(merged) == jax.tree.structure(dict(expected))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), merged, dict(expected))
    base = load_glm(folder / "checkpoint")[1]
    kernel = "layers", "mlp", "up", "kernel"
    change = [np.asarray(functools.reduce(lambda t, k: t[k], kernel, p)) for p in (merged, base)]
    assert np.abs(change[0] - change[1]).max() > 1e-3


def test_a_few_examples_that_the_seed_draws(folder, tmp_path, capsys):
    assert finetune(folder, tmp_path / "run", "finetune.max_train_examples=2") == 0
    assert "2 train, 4 dev examples" in capsys.readouterr().out
    assert len(losses(tmp_path / "run")) == 2
    settings = Seq2SeqConfig("customization", str(folder / "data"), source_length=40)
    drawn = {
        tuple(e.guid for e in read_split(settings, "train", byte_tokenizer(), 2, seed))
        for seed in range(8)
    }
    assert len(drawn) > 1 and all(len(some) == 2 for some in drawn)


def test_blanks_are_drawn_anew_in_every_epoch(tmp_path):
    lines = "".join(f"{' '.join(chr(97 + (n + i) % 26) for i in range(20))}\n" for n in range(6))
    for name in ("train", "valid"):
        (tmp_path / f"{name}.txt").write_text(lines)
    tokenizer, task = byte_tokenizer(), SEQ2SEQ_TASKS["blank"]
    settings = Seq2SeqConfig("blank", str(tmp_path), source_length=64)
    examples = read_split(settings, "train", tokenizer)
    layout = RowLayout(tokenizer.special, 64, 16)

    def tokens(pairs, index: int) -> list[int]:
        return pairs.row(index)["tokens"].tolist()

    pairs = encode_pairs(task, examples, tokenizer, layout, seed=5)
    epochs = [[tokens(pairs.of_epoch(epoch), n) for n in range(6)] for epoch in range(3)]
    assert all(one != other for one, other in itertools.combinations(epochs, 2))
    again = encode_pairs(task, examples, tokenizer, layout, seed=5)
    assert [tokens(again.of_epoch(2), n) for n in range(6)] == epochs[2]
    other = encode_pairs(task, examples, tokenizer, layout, seed=6)
    assert [tokens(other.of_epoch(2), n) for n in range(6)] != epochs[2]
    # Every row has its text, blanks filled, whatever its blanks are.
    for epoch, rows in enumerate(epochs):
        for index, ids in enumerate(rows):
            row = pairs.of_epoch(epoch).row(index)
            learnt = row["targets"][row["loss_mask"] == 1].tolist()
            found = [*ids[: int(row["prefix_length"])], *learnt]
            letters = sorted(id for id in found if id in range(ord("a"), ord("z") + 1))
            assert bytes(letters).decode() == "".join(sorted(examples[index].second[::2]))
    # The batches of a step depend on nothing else, and an evaluation's blanks stay.
    batches = TrainingBatches(pairs, 2, seed=1)
    for step in (7, 1, 4):
        found = TrainingBatches(again, 2, seed=1).at(step)
        jax.tree.map(np.testing.assert_array_equal, batches.at(step), found)
    dev = [read_split(settings, "dev", tokenizer) for _ in range(2)]
    assert dev[0] == dev[1]


def test_tasks_without_random_blanks_have_the_same_rows_in_every_epoch():
    tokenizer = byte_tokenizer()
    examples = [Example("0", "a text", "a target")]
    layout = RowLayout(tokenizer.special, 40, 16)
    pairs = encode_pairs(SEQ2SEQ_TASKS["customization"], examples, tokenizer, layout, 1)
    assert pairs.of_epoch(3) is pairs
