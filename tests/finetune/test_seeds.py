"""Runs of several seeds: their results, that they share what they can, and how they resume."""

from __future__ import annotations

import json
import math

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
from glm_jax.finetune.seeds import combined_results
from glm_jax.train.metrics import read_metrics

SEEDS = "finetune.seeds=(3, 1234, 7)"
# Slow enough for seeds to differ.
RATE = "optimizer.learning_rate=3e-4"


def run(task, folder, *bindings):
    settings = [f"finetune.run_folder={folder}", "finetune.epochs=2", RATE, *bindings]
    config = read_configuration([task / "run.gin"], settings, FinetuneRunConfig)
    return finetune(config, Console(quiet=True))


def params(folder):
    return jax.tree.map(np.asarray, glm_jax.load(folder)[1])


def losses(folder):
    return [r["loss"] for r in read_metrics(folder / "metrics.jsonl") if r["kind"] == "train"]


@pytest.fixture(scope="module")
def three(tiny_task, tmp_path_factory):
    folder = tmp_path_factory.mktemp("seeds") / "run"
    return folder, run(tiny_task, folder, SEEDS)


def test_the_results_are_mean_and_deviation_of_the_seeds(three):
    folder, outcome = three
    results = json.loads((folder / "results.json").read_text())
    assert results == outcome.results
    of_seeds = {
        seed: json.loads((folder / f"seed_{seed}/results.json").read_text())
        for seed in ("3", "1234", "7")
    }
    assert list(results["seeds"]) == ["3", "1234", "7"]
    for seed, found in of_seeds.items():
        assert results["seeds"][seed]["accuracy"] == found["accuracy"]
        assert results["seeds"][seed]["step"] == found["step"]
        assert (folder / f"seed_{seed}/predictions.jsonl").is_file()
    values = [found["accuracy"] for found in of_seeds.values()]
    assert results["accuracy"] == pytest.approx(np.mean(values))
    assert results["deviation"] == {"accuracy": pytest.approx(np.std(values, ddof=1))}
    counts = np.asarray(results["confusion"]["counts"])
    assert counts.sum() == 3 * 20  # examples of dev
    assert 100 * np.trace(counts) / counts.sum() == pytest.approx(results["accuracy"])
    for picture in ("confusion.png", "curves.png"):
        assert (folder / picture).stat().st_size > 5000
    assert len({tuple(losses(folder / f"seed_{seed}")) for seed in of_seeds}) == 3


def test_a_seed_among_several_is_as_one_alone(three, tiny_task, tmp_path):
    folder, _ = three
    # 1234 comes second: the weights of the first have been trained by then.
    alone = run(tiny_task, tmp_path / "run", "finetune.seed=1234")
    assert alone.results == json.loads((folder / "seed_1234/results.json").read_text())
    assert losses(tmp_path / "run") == losses(folder / "seed_1234")
    jax.tree.map(
        np.testing.assert_array_equal, params(tmp_path / "run"), params(folder / "seed_1234")
    )


@pytest.mark.slow
def test_seeds_that_are_done_are_not_done_again(three, tiny_task, tmp_path, monkeypatch):
    folder, outcome = three
    stops = iter([False] * 12 + [False] * 4 + [True])
    with monkeypatch.context() as patch:
        patch.setattr(StopRequest, "asked", lambda self, step: next(stops))
        stopped = run(tiny_task, tmp_path / "run", SEEDS)
    assert (stopped.results, stopped.seed, stopped.steps) == (None, 1234, 5)
    assert not (tmp_path / "run/results.json").exists()
    first = tmp_path / "run/seed_3"
    files = [path for path in first.rglob("*") if path.is_file()]
    # The pointers are written again by every start.
    files = [path for path in files if path.name not in ("best", "last")]
    before = {path: path.stat().st_mtime_ns for path in files}
    resumed = run(tiny_task, tmp_path / "run", SEEDS)
    assert resumed.results == outcome.results
    assert {path: path.stat().st_mtime_ns for path in before} == before
    for seed in (3, 1234, 7):
        jax.tree.map(
            np.testing.assert_array_equal,
            params(tmp_path / f"run/seed_{seed}"),
            params(folder / f"seed_{seed}"),
        )


def test_the_command_prints_mean_and_deviation(three, tiny_task, capsys):
    folder, outcome = three
    flags = [
        f"--gin.finetune.run_folder={folder}",
        "--gin.finetune.epochs=2",
        f"--gin.{SEEDS}",
        f"--gin.{RATE}",
    ]
    assert main(["finetune", f"--gin_file={tiny_task / 'run.gin'}", *flags]) == 0
    printed = capsys.readouterr().out
    for number, seed in enumerate((3, 1234, 7), 1):
        assert f"seed {seed}, {number} of 3: {folder}/seed_{seed}\n" in printed
        assert f"this run is done: all 12 steps of {folder}/seed_{seed}\n" in printed
        accuracy = outcome.results["seeds"][str(seed)]["accuracy"]
        assert f"/seed_{seed}\ndev         accuracy {accuracy:.4g}\n" in printed
    results = outcome.results
    line = f"accuracy {results['accuracy']:.4g} ± {results['deviation']['accuracy']:.2g}"
    assert f"dev         {line}, 3 seeds\n" in printed


def test_a_folder_of_seeds_is_not_taken_for_a_run(three, tiny_task, capsys):
    folder, _ = three
    assert main(["evaluate", str(folder), "--task=custom"]) == 2
    error = capsys.readouterr().err
    assert "has runs of several seeds" in error and "seed_3" in error and error.count("\n") == 1
    again = [f"--gin_file={tiny_task / 'run.gin'}", f"--gin.finetune.run_folder={folder}"]
    assert main(["finetune", *again]) == 2
    assert "has runs of several seeds" in capsys.readouterr().err


@pytest.mark.parametrize("seeds", ["(1,)", "(1, 2, 1)", "(-1, 2)"])
def test_seeds_without_a_deviation_are_refused(tiny_task, tmp_path, capsys, seeds):
    flags = [f"--gin.finetune.run_folder={tmp_path / 'run'}", f"--gin.finetune.seeds={seeds}"]
    assert main(["finetune", f"--gin_file={tiny_task / 'run.gin'}", *flags]) == 2
    error = capsys.readouterr().err
    assert "expected at least two different seeds" in error and error.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_splits_and_published_scores_are_combined_too():
    def results(accuracy, test):
        published = {"accuracy": 74.0, "model": "GLM-Large", "source": "a paper"}
        dev = {"task": "rte", "step": 4, "steps": 8, "accuracy": accuracy}
        confusion = {"labels": ["a", "b"], "counts": [[3, 1], [0, int(test)]]}
        return {**dev, "confusion": confusion, "test": {"accuracy": test}, "published": published}

    found = combined_results({1: results(70.0, 60.0), 2: results(74.0, 61.0)})
    assert found == {
        "task": "rte",
        "accuracy": 72.0,
        "test": {"accuracy": 60.5},
        "confusion": {"labels": ["a", "b"], "counts": [[6, 2], [0, 121]]},
        "deviation": {
            "accuracy": pytest.approx(math.sqrt(8)),
            "test": {"accuracy": pytest.approx(math.sqrt(0.5))},
        },
        "published": {"accuracy": 74.0, "model": "GLM-Large", "source": "a paper"},
        "seeds": {
            "1": {"step": 4, "steps": 8, "accuracy": 70.0, "test": {"accuracy": 60.0}},
            "2": {"step": 4, "steps": 8, "accuracy": 74.0, "test": {"accuracy": 61.0}},
        },
    }
