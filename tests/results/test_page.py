"""The page of published results: up to date, and with the right commands, slices and times."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from glm_jax.cli.main import main as glm_jax_main
from glm_jax.compile.report import read_report
from glm_jax.errors import UsageError
from glm_jax.results.page import main, render
from glm_jax.results.published import CNN_DM, LANGUAGE_MODELS, SUPERGLUE, XSUM
from glm_jax.results.runs import NOT_COMPILED, compiled_steps, finetuning_run, is_step_of

ROOT = Path(__file__).resolve().parents[2]


def test_the_page_is_up_to_date():
    page = (ROOT / "docs/results.md").read_text()
    assert page == render(ROOT), "run: make results-page"


def test_tables_have_a_figure_for_every_column():
    for table in (SUPERGLUE, CNN_DM, XSUM, LANGUAGE_MODELS):
        assert {len(row) for row in table.rows.values()} == {len(table.columns)}
    assert SUPERGLUE.rows["GLM-10B"][4:6] == ["98.7/98.2", "88.1/63.3"]
    assert SUPERGLUE.rows["GLM-RoBERTa"][-2:] == ["89.6/89.0", "82.9"]


def test_a_run_has_the_smallest_slice_of_its_step_and_its_time():
    run = finetuning_run(ROOT, "rte", "10b")
    report = read_report(ROOT / "docs/tpu/rte_10b-v5p-2x2x1.json")
    assert run.slice == "v5p:2x2x1 (4 chips)"
    seconds = report.prediction.overlapped_seconds
    assert run.time.startswith(f"{seconds:.2f} to ") and f"{seconds * 1000 / 64:.0f} to" in run.time
    assert finetuning_run(ROOT, "boolq", "10b").compiled == run.compiled
    # Of other lengths, choices, networks and kinds.
    for other in (("multirc", "10b"), ("cb", "10b"), ("rte", "large"), ("xsum", "large")):
        assert finetuning_run(ROOT, *other).time == NOT_COMPILED


def test_a_lora_step_is_not_that_of_the_recipe():
    by_name = {step.hardware.path.stem: step for step in compiled_steps(ROOT)}
    config = finetuning_run(ROOT, "rte", "10b").config
    assert is_step_of(by_name["rte_10b-v6e-2x4"], config)
    assert not is_step_of(by_name["rte_10b_lora-v6e-2x2"], config)


def test_commands_are_accepted_up_to_the_missing_files(tmp_path, monkeypatch, capsys):
    """Flags and settings are right: what is refused is the missing checkpoint."""
    monkeypatch.chdir(ROOT)
    for task, model in (("rte", "10b"), ("record", "10b"), ("xsum", "roberta")):
        command = finetuning_run(ROOT, task, model).command.split()
        folder = f"--gin.finetune.run_folder={tmp_path / 'run'}"
        # The slice's mesh has more devices than there are here.
        flags = [flag for flag in command[2:] if not flag.startswith("--gin.mesh")]
        assert glm_jax_main([command[1], *flags, folder, "--gin.mesh.data=1"]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and "gin" not in error, error


def test_a_report_of_another_batch_does_not_count(tmp_path):
    for folder in ("configs", "docs/tpu"):
        (tmp_path / folder).parent.mkdir(exist_ok=True)
        (tmp_path / folder).symlink_to(ROOT / folder)
    assert len(compiled_steps(tmp_path)) == len(compiled_steps(ROOT))
    (tmp_path / "docs/tpu").unlink()
    (tmp_path / "docs/tpu").mkdir()
    name = "rte_10b-v5p-2x2x1.json"
    values = json.loads((ROOT / "docs/tpu" / name).read_text())
    (tmp_path / "docs/tpu" / name).write_text(json.dumps({**values, "batch_size": 32}))
    compiled_steps.cache_clear()
    assert compiled_steps(tmp_path) == []
    compiled_steps.cache_clear()


def test_a_missing_recipe_is_one_sentence(tmp_path, capsys):
    (tmp_path / "docs").mkdir()
    with pytest.raises(UsageError):
        finetuning_run(tmp_path, "rte", "10b")
    assert main([f"--root={tmp_path}"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
