"""Finetuning runs: results, the best checkpoint, resuming, early ends, and bad input."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from rich.console import Console

import glm_jax
from glm_jax.cli.main import main
from glm_jax.cluster.preemption import StopRequest
from glm_jax.configure import read_configuration
from glm_jax.finetune.config import FinetuneRunConfig
from glm_jax.finetune.run import finetune
from glm_jax.train.metrics import read_metrics


def run(task: Path, folder: Path, *bindings: str):
    settings = [f"finetune.run_folder={folder}", *bindings]
    config = read_configuration([task / "run.gin"], settings, FinetuneRunConfig)
    return finetune(config, Console(quiet=True))


def losses(folder: Path) -> list[float]:
    return [r["loss"] for r in read_metrics(folder / "metrics.jsonl") if r["kind"] == "train"]


def final_params(folder: Path):
    return jax.tree.map(np.asarray, glm_jax.load(folder)[1])


@pytest.fixture(scope="module")
def finished(tiny_task, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "run"
    return folder, run(tiny_task, folder)


def test_a_run_learns_and_writes_its_results(finished, tiny_task):
    folder, outcome = finished
    assert outcome.steps == outcome.num_steps == 3 * 6  # 44 examples in batches of 8
    results = json.loads((folder / "results.json").read_text())
    evaluations = [r for r in read_metrics(folder / "metrics.jsonl") if r["kind"] == "validation"]
    assert [r["step"] for r in evaluations] == [6, 12, 18]
    best = max(evaluations, key=lambda record: record["accuracy"])
    assert results["accuracy"] == best["accuracy"] > 80
    assert results["step"] == best["step"]
    assert (folder / "curves.png").stat().st_size > 5000
    assert (folder / "confusion.png").stat().st_size > 5000
    pointer = json.loads((folder / "checkpoints/best").read_text())
    counts = np.asarray(results["confusion"]["counts"])
    assert results["confusion"]["labels"] == ["bad", "good"] and counts.sum() == 20
    assert 100 * np.trace(counts) / 20 == results["accuracy"]
    assert pointer == {"step": best["step"], "metrics": {"accuracy": best["accuracy"]}}
    assert (folder / "checkpoints" / str(best["step"])).is_dir()
    predicted = [json.loads(line) for line in (folder / "predictions.jsonl").open()]
    rows = [json.loads(line) for line in (tiny_task / "data/dev.jsonl").open()]
    right = sum(p["label"] == row["label"] for p, row in zip(predicted, rows, strict=True))
    assert 100 * right / len(rows) == results["accuracy"]


def test_a_stopped_run_resumes_bit_for_bit(finished, tiny_task, tmp_path, monkeypatch):
    folder, outcome = finished
    for step in (4, 12):  # within an epoch, and where a checkpoint was saved but not evaluated
        with monkeypatch.context() as patch:
            patch.setattr(StopRequest, "asked", lambda self, at, step=step: at == step)
            stopped = run(tiny_task, tmp_path / "run")
        assert stopped.results is None and stopped.steps == step
    resumed = run(tiny_task, tmp_path / "run")
    assert resumed.results == outcome.results
    expected = [r for r in read_metrics(folder / "metrics.jsonl") if r["kind"] == "validation"]
    found = [r for r in read_metrics(tmp_path / "run/metrics.jsonl") if r["kind"] == "validation"]
    without_time = [{k: v for k, v in r.items() if k != "seconds"} for r in expected]
    assert [{k: v for k, v in r.items() if k != "seconds"} for r in found] == without_time
    jax.tree.map(
        np.testing.assert_array_equal, final_params(tmp_path / "run"), final_params(folder)
    )


def refused(task: Path, folder: Path, capsys, *settings: str) -> str:
    """The sentence that a run is refused with."""
    flags = [f"--gin.{setting}" for setting in (f"finetune.run_folder={folder}", *settings)]
    assert main(["finetune", f"--gin_file={task / 'run.gin'}", *flags]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "folder" in error, error
    return error


def test_a_run_does_not_resume_as_another(finished, tiny_task, tmp_path, capsys):
    folder, _ = finished
    error = refused(tiny_task, folder, capsys, "finetune.batch_size=4")
    assert "finetune.batch_size is 4, but the run in" in error
    shutil.copytree(tiny_task / "checkpoint", tmp_path / "other")
    error = refused(tiny_task, folder, capsys, f"finetune.initial_weights={tmp_path / 'other'}")
    assert "finetune.initial_weights is" in error and "give the run a folder of its own" in error
    shutil.copytree(tiny_task / "data", tmp_path / "data")
    with (tmp_path / "data/train.jsonl").open("a") as file:
        file.write('{"text": "xab", "label": "good"}\n')
    error = refused(tiny_task, folder, capsys, f"task.data={tmp_path / 'data'}")
    assert f"{tmp_path / 'data'} has 45 training examples, but the run in {folder} has 44" in error
    assert "has a run of one seed" in refused(tiny_task, folder, capsys, "finetune.seeds=(1, 2)")


def test_a_folder_of_another_kind_is_not_taken_over(tiny_task, tmp_path, capsys):
    folder = tmp_path / "converted"
    shutil.copytree(tiny_task / "checkpoint", folder)
    before = sorted(folder.rglob("*"))
    assert "that no finetuning run has written" in refused(tiny_task, folder, capsys)
    assert sorted(folder.rglob("*")) == before


def test_a_finished_run_is_left_as_it_is(finished, tiny_task, capsys):
    folder, outcome = finished
    files = [folder / name for name in ("results.json", "metrics.jsonl", "predictions.jsonl")]
    before = [(file.read_text(), file.stat().st_mtime_ns) for file in files]
    gin_file = f"--gin_file={folder / 'config.gin'}"
    assert main(["finetune", gin_file]) == 0
    printed = capsys.readouterr().out
    assert f"this run is done: all 18 steps of {folder}\n" in printed
    assert f"dev         accuracy {outcome.results['accuracy']:.4g}\n" in printed
    assert [(file.read_text(), file.stat().st_mtime_ns) for file in files] == before


def test_a_finished_run_continues_with_more_epochs(tiny_task, tmp_path):
    folder = tmp_path / "run"
    assert run(tiny_task, folder, "finetune.epochs=1").steps == 6
    longer = run(tiny_task, folder, "finetune.epochs=2")
    assert longer.steps == 12 and longer.results is not None
    assert json.loads((folder / "results.json").read_text())["steps"] == 12


def test_a_run_ends_early_without_progress(tiny_task, tmp_path):
    settings = ("optimizer.learning_rate=1e-12", "finetune.patience=1", "finetune.epochs=5")
    outcome = run(tiny_task, tmp_path / "run", *settings)
    assert outcome.steps == 12 and outcome.results is not None
    assert outcome.results["step"] == 6


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param(("task.multi_token=False",), marks=pytest.mark.slow),
        ("task.cloze=False", "task.pool=pad"),
        pytest.param(("prompt.prefix=2", "prompt.encoder=mlp"), marks=pytest.mark.slow),
        pytest.param(("finetune.accumulation_steps=2",), marks=pytest.mark.slow),
        pytest.param(("task.segment_length=1", "finetune.epochs=8"), marks=pytest.mark.slow),
        pytest.param(
            ("task.loss=adapet", "task.multi_token=False", "finetune.epochs=8"),
            marks=pytest.mark.slow,
        ),
        pytest.param(("task.loss=hinge",), marks=pytest.mark.slow),
    ],
    ids=["verbalizers", "head", "prompts", "accumulation", "segments", "adapet", "hinge"],
)
def test_every_way_of_training_learns(tiny_task, tmp_path, settings):
    words = ("task.words={'bad': 'n', 'good': 'y'}", "task.patterns=('{text} is[MASK].',)")
    outcome = run(tiny_task, tmp_path / "run", *words, "finetune.epochs=4", *settings)
    assert outcome.results is not None and outcome.results["accuracy"] > 70


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (["task.name=rtee"], "there is no task 'rtee'; did you mean rte?"),
        (["task.pattern=3"], "task.pattern is 3; task custom has 0 to 0"),
        (["task.data=nowhere"], "train.jsonl is missing, which task custom needs"),
        (["task.label=answer"], "has no label"),
        (["task.patterns=('{review} [MASK]',)"], "line 1: no field 'review'; found text, label"),
        (["task.words={'bad': 'n', 'ugly': 'y'}"], "has the label 'good'"),
        (["task.words={'bad': 'n', 'good': 'no'}", "task.multi_token=False"], "2 tokens where one"),
        (["task.sequence_length=8"], "can't be shortened need a sequence length"),
        (["task.ensemble=(0, 1)"], "task.ensemble is (0, 1); task custom has 0 to 0"),
        (["task.ensemble=(0,)", "task.cloze=False"], "a head classifies without patterns"),
        (["task.few_shot=True"], "task custom has no few-shot files"),
        (["task.loss=mix", "task.multi_token=False"], "words are compared by their logits"),
        (["task.loss=generative", "task.cloze=False"], "a head has none"),
        (["task.loss=hinge", "task.label_smoothing=0.1"], "task.label_smoothing is 0.1, which"),
        (["task.segment_length=2", "task.multi_token=False"], "no answers are scored"),
        (["task.length_penalty=1.0", "task.cloze=False"], "no answers are scored"),
        (["finetune.block_lm_ratio=-1.0"], "0 or a positive number"),
        (["finetune.block_lm_ratio=1.0", "task.cloze=False"], "needs texts made by patterns"),
        (["finetune.block_lm_ratio=1.0", "task.sequence_length=15"], "at least 16 positions"),
        (["finetune.block_lm_ratio=1.0", "blanks.sentinels=True"], "has no token MASK1"),
        (["finetune.length_window=0"], "an integer of at least 1"),
        (["finetune.new_positions=zero"], "one of random, repeat"),
        (["prompt.num_tokens=3"], "have no slots"),
        (["prompt.prefix=3", "task.cloze=False"], "task.cloze is False"),
        (["finetune.initial_weights=nowhere"], "nowhere"),
        (["mesh.context=2"], "finetuning does not shard sequences"),
        (["model.num_layers=2"], "this command has the sections"),
        (["finetune.batch_size=5", "finetune.accumulation_steps=2"], "does not divide"),
    ],
)
def test_bad_input_is_one_sentence_and_nothing_is_written(
    tiny_task, tmp_path, capsys, settings, sentence
):
    flags = [f"--gin.{setting}" for setting in settings]
    gin_file = f"--gin_file={tiny_task / 'run.gin'}"
    folder = tmp_path / "run"
    assert main(["finetune", gin_file, f"--gin.finetune.run_folder={folder}", *flags]) == 2
    error = capsys.readouterr().err
    assert sentence in error and error.count("\n") == 1, error
    assert not folder.exists()
