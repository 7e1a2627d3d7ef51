"""Published scores: copied without a slip, in the units of our metrics, and set next to results."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from glm_jax.cli.main import main
from glm_jax.configure import read_configuration
from glm_jax.finetune.config import FinetuneRunConfig
from glm_jax.finetune.published import _ROWS, PUBLISHED, published_scores
from glm_jax.finetune.results import result_lines
from glm_jax.seq2seq.registry import SEQ2SEQ_TASKS
from glm_jax.tasks import find_task

# The mean over the eight tasks that the paper prints next to each row.
AVERAGES = {
    "GLM-Base": 70.7,
    "GLM-Large": 77.0,
    "GLM-Doc": 75.7,
    "GLM-410M": 78.0,
    "GLM-515M": 78.8,
    "GLM-RoBERTa": 82.9,
}
FRACTIONS = ("f1-macro", "f1a", "em")


@pytest.mark.parametrize("model", AVERAGES)
def test_rows_have_the_average_that_is_printed_with_them(model):
    record_f1, record_em, copa, wsc, rte, boolq, wic, cb_f1, cb, f1a, em = _ROWS[model]
    pairs = [(record_f1 + record_em) / 2, (cb_f1 + cb) / 2, (f1a + em) / 2]
    # A tie of the second digit may be rounded either way.
    assert abs(sum([copa, wsc, rte, boolq, wic, *pairs]) / 8 - AVERAGES[model]) <= 0.0501


def test_scores_have_the_names_and_units_of_the_tasks():
    for tasks in PUBLISHED.values():
        for task, scores in tasks.items():
            assert set(scores) <= set(find_task(task).metrics)
            for name, value in scores.items():
                assert 0 < value <= (1 if name in FRACTIONS else 100)
                assert value > (0.2 if name in FRACTIONS else 50)


def test_only_known_scores_are_given():
    found = published_scores("GLM-RoBERTa", "rte")
    assert found == {
        "accuracy": 87.7,
        "model": "GLM-RoBERTa",
        "source": "arxiv.org/abs/2103.10360, table 1",
    }
    assert published_scores("GLM-RoBERTa", "cola") is None
    assert published_scores("", "rte") is None


# Those of tasks that write texts are in tests/seq2seq/test_recipes.py.
WRITTEN = (*(f"{name}_" for name in SEQ2SEQ_TASKS), "chatglm_")
RECIPES = [
    path
    for path in sorted(Path(__file__).resolve().parents[2].glob("configs/finetune/*_*.gin"))
    if not path.name.startswith(WRITTEN)
]
ROWS = {"large": "GLM-Large", "roberta": "GLM-RoBERTa", "10b": "GLM-10B", "chinese": ""}


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_is_compared_with_its_model(recipe):
    config = read_configuration([recipe], root=FinetuneRunConfig)
    model = ROWS[recipe.stem.removesuffix("_lora").rpartition("_")[2]]
    assert config.finetune.published == model
    assert (published_scores(model, config.task.name) is None) == (model == "")


def test_the_line_sets_the_score_next_to_the_published_one():
    results = {
        "task": "cb",
        "step": 10,
        "steps": 20,
        "accuracy": 92.857,
        "f1-macro": 0.9,
        "published": published_scores("GLM-10B", "cb"),
    }
    assert list(result_lines(results)) == [
        "dev         accuracy 92.86, f1-macro 0.9",
        "published   accuracy 98.2, f1-macro 0.987 (GLM-10B, github.com/THUDM/GLM)",
    ]


def test_a_model_that_is_not_known_is_refused(tiny_task, tmp_path, capsys):
    flags = [f"--gin.finetune.run_folder={tmp_path / 'run'}", "--gin.finetune.published=GLM-9B"]
    assert main(["finetune", f"--gin_file={tiny_task / 'run.gin'}", *flags]) == 2
    assert "finetune.published is 'GLM-9B'; expected one of GLM-Base" in capsys.readouterr().err


def test_a_task_without_a_published_score_has_none(tiny_task, tmp_path, capsys):
    folder = tmp_path / "run"
    flags = [f"--gin.finetune.run_folder={folder}", "--gin.finetune.published=GLM-Large"]
    flags += ["--gin.finetune.epochs=0"]
    assert main(["finetune", f"--gin_file={tiny_task / 'run.gin'}", *flags]) == 0
    assert "published" not in capsys.readouterr().out
    assert "published" not in json.loads((folder / "results.json").read_text())
