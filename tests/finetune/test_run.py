"""Finetuning runs: results, the best checkpoint, resuming, early ends, and bad input."""

from __future__ import annotations

import json
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


def test_a_run_does_not_resume_as_another(finished, tiny_task, capsys):
    folder, _ = finished
    flags = [f"--gin.finetune.run_folder={folder}", "--gin.finetune.batch_size=4"]
    assert main(["finetune", f"--gin_file={tiny_task / 'run.gin'}", *flags]) == 2
    assert "finetune.batch_size is 4, but the run in" in capsys.readouterr().err


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
    ],
    ids=["verbalizers", "head", "prompts", "accumulation"],
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
        (["task.sequence_length=128"], "position tables of"),
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
