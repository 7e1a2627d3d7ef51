"""`glm-jax evaluate --task`: a finetuned run answers as trained, other checkpoints as they are."""

from __future__ import annotations

import json
from typing import Any

import jax
import numpy as np
import pytest
from etils import epath

import glm_jax
from glm_jax.cli.main import main
from glm_jax.configure import read_configuration
from glm_jax.finetune.config import FinetuneRunConfig
from glm_jax.finetune.evaluate import untrained_settings
from glm_jax.finetune.predict import score_all
from glm_jax.finetune.prepare import prepare_finetuning
from glm_jax.finetune.trainable import join


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


def test_fill_refuses_what_a_run_was_not_finetuned_for(finished, tiny_task, tmp_path, capsys):
    capsys.readouterr()
    assert main(["fill", str(finished), "xab is [MASK]."]) == 0
    assert capsys.readouterr().out.startswith("xab is")
    texts = tmp_path / "texts.txt"
    texts.write_text("xab\nxab is [MASK].\n")
    for text in ("xab", f"--file={texts}"):
        assert main(["fill", str(finished), text]) == (1 if text.startswith("--") else 2)
        found = capsys.readouterr()
        sentence = (
            f"was finetuned to choose the answers of task custom; glm-jax evaluate {finished}"
        )
        assert f"{sentence} --task=custom does that" in found.err
    assert found.out.count("xab is") == 1
    # Weights without their run continue a text.
    assert main(["convert", str(finished), str(tmp_path / "weights")]) == 0
    capsys.readouterr()
    command = ["fill", str(tmp_path / "weights"), "xab", f"--tokenizer={finished}"]
    assert main([*command, "--max_blank_length=3"]) == 0
    assert capsys.readouterr().out.startswith("xab")


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


def test_multiple_choice_takes_a_pattern_of_files(tiny_task, tmp_path, capsys):
    """Of several files, each has its accuracy, and all the mean weighted by their examples."""
    for name, labels in (("one", (0, 1, 0)), ("two", (1,))):
        rows = [
            {"inputs_pretokenized": "x" * 40, "choices_pretokenized": [" a", " bcd"], "label": i}
            for i in labels
        ]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "notes.txt").write_text("no choices")
    for task in ("multichoice", "multichoice-unidirectional"):
        arguments = ["evaluate", str(tiny_task / "checkpoint"), f"--task={task}", "--json"]
        arguments += [f"--data={tmp_path}/*", "--gin.task.sequence_length=32"]
        assert main(arguments) == 0
        found = json.loads(capsys.readouterr().out)
        # All questions are one question, so that one choice is taken everywhere.
        one, two = found["accuracy of one"], found["accuracy of two"]
        assert (one, two) in ((pytest.approx(200 / 3), 0.0), (pytest.approx(100 / 3), 100.0))
        assert found["accuracy"] == pytest.approx((3 * one + two) / 4)


def test_left_to_right_scores_are_of_the_choice_after_the_text(tiny_task, tmp_path):
    """The score of a choice is that of its tokens, wherever in Part B they are."""
    row = {"inputs_pretokenized": "some text", "choices_pretokenized": [" a", " bcd"]}
    (tmp_path / "a.jsonl").write_text(json.dumps(row))
    checkpoint = tiny_task / "checkpoint"
    settings = untrained_settings(epath.Path(checkpoint), "multichoice-unidirectional")
    settings += [f"task.data={str(tmp_path)!r}", "task.sequence_length=32"]
    ready = prepare_finetuning(read_configuration([], settings, FinetuneRunConfig), ("dev",))
    encoded = ready.splits["dev"].encoded
    with jax.set_mesh(ready.mesh):
        found = score_all(
            encoded, ready.program.score, join(ready.params_of(1), ready.frozen), ready.mesh, 16
        )
    model, params = glm_jax.load(checkpoint)
    arrays = encoded.row(0)
    logits: Any = model.apply(
        {"params": params}, arrays["tokens"], arrays["position_ids"], arrays["prefix_length"]
    )
    log_probabilities = jax.nn.log_softmax(logits)
    picked = np.take_along_axis(np.asarray(log_probabilities), arrays["targets"][..., None], -1)
    expected = (picked[..., 0] * arrays["loss_mask"]).sum(-1)
    np.testing.assert_allclose(found[0], expected, rtol=1e-5)
