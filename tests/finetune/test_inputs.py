"""Runs on what a task can be made into: ensembles, priming, generative WSC, longer positions."""

from __future__ import annotations

import json
from pathlib import Path

import jax
import numpy as np
import pytest

import glm_jax
from glm_jax.cluster.preemption import StopRequest
from glm_jax.train.metrics import read_metrics
from tests.finetune.test_run import final_params, losses, run


def equal_trees(left, right) -> None:
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, b), left, right)


@pytest.mark.slow
def test_a_run_with_priming_batches_resumes_bit_for_bit(tiny_task, tmp_path, monkeypatch):
    settings = ("finetune.block_lm_ratio=1.0", "finetune.epochs=2", "finetune.log_every=1")
    whole = run(tiny_task, tmp_path / "whole", *settings)
    with monkeypatch.context() as patch:
        patch.setattr(StopRequest, "asked", lambda self, at: at == 5)
        assert run(tiny_task, tmp_path / "parts", *settings).steps == 5
    resumed = run(tiny_task, tmp_path / "parts", *settings)
    assert resumed.results == whole.results
    assert losses(tmp_path / "parts") == losses(tmp_path / "whole")
    equal_trees(final_params(tmp_path / "parts"), final_params(tmp_path / "whole"))
    plain = run(tiny_task, tmp_path / "plain", *settings[1:])
    assert plain.steps == whole.steps  # a priming batch is in place of one of the task
    assert losses(tmp_path / "plain") != losses(tmp_path / "whole")


def test_an_ensemble_sees_every_example_by_every_pattern(tiny_task, tmp_path):
    patterns = "task.patterns=('{text} is[MASK].', '[MASK] is {text}.')"
    words = "task.words={'bad': 'n', 'good': 'y'}"
    settings = (patterns, words, "task.multi_token=False", "task.ensemble=(0, 1)")
    outcome = run(tiny_task, tmp_path / "run", *settings, "finetune.epochs=4")
    assert outcome.steps == 4 * 11  # 2 x 44 rows in batches of 8
    assert outcome.results is not None and outcome.results["accuracy"] > 70


def wsc_row(number: int, antecedent: str, correct: bool) -> dict:
    target = {"span1_text": antecedent, "span1_index": 0, "span2_text": "it", "span2_index": 2}
    return {"text": "ab saw it", "target": target, "label": correct, "idx": number}


@pytest.fixture(scope="module")
def wsc_folder(tmp_path_factory) -> Path:
    """The antecedent is the first word; wrong ones are not in the text."""
    folder = tmp_path_factory.mktemp("wsc")
    train = [wsc_row(n, "ab", True) for n in range(32)]
    dev = [wsc_row(n, "zz" if n % 2 else "ab", n % 2 == 0) for n in range(8)]
    for name, rows in (("train", train), ("val", dev)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


WSC = (
    *("task.name=wsc", "task.patterns=()", "task.words={}", "task.multi_token=False"),
    *("task.sequence_length=96", "finetune.batch_size=4", "finetune.dropout=0.0"),
)


def test_wsc_without_wrong_answers_learns_the_right_one_and_recognizes_it(
    tiny_task, wsc_folder, tmp_path
):
    """Also: position tables of 64 rows reach to 96 positions within the run."""
    settings = (*WSC, f"task.data={wsc_folder}", "finetune.epochs=4")
    outcome = run(tiny_task, tmp_path / "run", *settings)
    # "ab" is written for every text, "zz" never is.
    assert outcome.results is not None and outcome.results["accuracy"] == 100
    found = [json.loads(line) for line in (tmp_path / "run/predictions.jsonl").open()]
    assert [item["label"] for item in found] == ["True", "False"] * 4
    model, params = glm_jax.load(tmp_path / "run")
    assert model.config.max_sequence_length == 96
    assert params["position_embedding"].shape[0] == 97


def test_every_step_has_the_learning_rate_of_the_schedule(tiny_task, tmp_path):
    """Linear to the peak over W = warm-up x N updates, and to a tenth of it at update N."""
    settings = ("finetune.epochs=2", "finetune.log_every=1", "optimizer.warmup_fraction=0.25")
    run(tiny_task, tmp_path / "run", *settings, "optimizer.final_fraction=0.1")
    records = [r for r in read_metrics(tmp_path / "run/metrics.jsonl") if r["kind"] == "train"]
    peak, updates, warmup = 3e-3, 12, 3
    for record in records:
        done = record["step"] - 1
        past = max(done - warmup, 0) / (updates - warmup)
        expected = peak * done / warmup if done < warmup else peak * (1 - 0.9 * past)
        assert record["learning_rate"] == pytest.approx(expected, rel=1e-5), record["step"]


def test_checkpoints_are_regular_too_and_every_evaluation_has_one(tiny_task, tmp_path):
    settings = ("checkpoint.every=4", "checkpoint.keep=20", "finetune.epochs=2")
    run(tiny_task, tmp_path / "run", *settings)
    saved = {int(p.name) for p in (tmp_path / "run/checkpoints").iterdir() if p.name.isdecimal()}
    assert {6, 12} <= saved <= {4, 6, 8, 12}
