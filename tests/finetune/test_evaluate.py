"""`glm-jax evaluate --task`: a finetuned run answers as trained, other checkpoints as they are."""

from __future__ import annotations

import json

import pytest

from glm_jax.cli.main import main


@pytest.fixture(scope="module")
def finished(tiny_task, tmp_path_factory):
    folder = tmp_path_factory.mktemp("evaluated") / "run"
    flags = [f"--gin.finetune.run_folder={folder}", "--gin.finetune.epochs=2"]
    assert main(["finetune", f"--gin_file={tiny_task / 'run.gin'}", *flags]) == 0
    return folder


def test_a_finetuned_run_has_the_score_of_its_best_checkpoint(finished, tmp_path, capsys):
    file = tmp_path / "found.json"
    capsys.readouterr()
    assert main(["evaluate", str(finished), "--task=custom", f"--json={file}"]) == 0
    found = json.loads(file.read_text())
    expected = json.loads((finished / "results.json").read_text())
    assert found == {"task": "custom", "split": "dev", "accuracy": expected["accuracy"]}
    assert capsys.readouterr().out == f"dev accuracy {expected['accuracy']:.4g}\n"


def test_any_checkpoint_answers_without_training(tiny_task, capsys):
    flags = [
        "--gin.task.patterns=('{text} is [MASK].',)",
        "--gin.task.words={'bad': 'n', 'good': 'y'}",
        "--gin.task.multi_token=True",
        "--gin.task.sequence_length=32",
    ]
    data = f"--data={tiny_task / 'data'}"
    arguments = ["evaluate", str(tiny_task / "checkpoint"), "--task=custom", data, *flags]
    assert main([*arguments, "--json"]) == 0
    assert 0 <= json.loads(capsys.readouterr().out)["accuracy"] <= 100
    assert main([*arguments, "--gin.task.cloze=False"]) == 2
    assert "has neither a head nor prompts" in capsys.readouterr().err
    assert main([*arguments, "--split=test"]) == 2
    assert "test.jsonl is missing, which task custom needs" in capsys.readouterr().err
