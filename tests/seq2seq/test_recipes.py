"""The gin files of tasks that write texts give the values of the original's recipes."""

from __future__ import annotations

from pathlib import Path

import pytest

from glm_jax.configure import read_finetuning
from glm_jax.seq2seq.config import Seq2SeqRunConfig
from glm_jax.seq2seq.registry import SEQ2SEQ_TASKS

FOLDER = Path(__file__).resolve().parents[2] / "configs" / "finetune"
# S, T, minimum length, length penalty, n-gram, beams, learning rate, epochs, epochs between
# evaluations.
VALUES = {
    "cnn_dm": (608, 160, 55, 0.7, 3, 5, 3e-5, 15, 1),
    "cnn_dm_original": (608, 160, 55, 0.7, 3, 5, 1e-5, 10, 2),
    "gigaword": (192, 32, 0, 0.6, 3, 5, 3e-5, 10, 1),
    "xsum": (608, 60, 10, 1.0, 3, 6, 1e-5, 6, 2),
    "squad_generation": (464, 48, 0, 0.7, 0, 5, 2e-5, 10, 10),
    "cmrc": (464, 48, 0, 0.7, 0, 5, 2e-5, 10, 10),
    "squad": (512, 64, 0, 0.0, 0, 5, 1e-5, 10, 1),
    "squad_v1": (512, 64, 0, 0.0, 0, 5, 1e-5, 5, 1),
    "customization": (512, 128, 55, 0.7, 3, 5, 1e-5, 10, 2),
    "blank": (256, 200, 0, 0.0, 3, 1, 1e-5, 5, 1),
}
MODELS = ("large", "roberta", "10b", "large_chinese")
RECIPES = {
    f"{task}_{model}": (task, model)
    for task in VALUES
    for model in MODELS
    if (FOLDER / f"{task}_{model}.gin").is_file()
}


def test_every_task_with_a_recipe_has_one_for_a_model():
    assert {task for task, _ in RECIPES.values()} == set(VALUES)
    assert set(SEQ2SEQ_TASKS) - set(VALUES) == {"extraction", "answers"}


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_are_those_of_the_original(name):
    task, model = RECIPES[name]
    config = read_finetuning([FOLDER / f"{name}.gin"])
    assert isinstance(config, Seq2SeqRunConfig)
    pairs, search, run = config.seq2seq, config.generation, config.finetune
    rate = 5e-6 if model == "10b" else VALUES[task][6]
    assert (
        *(pairs.source_length, pairs.target_length, search.min_length, search.length_penalty),
        *(search.no_repeat_ngram, search.beams, config.optimizer.learning_rate),
        *(run.epochs, run.evaluate_every_epochs),
    ) == (*VALUES[task][:6], rate, *VALUES[task][7:])
    assert pairs.name == task and pairs.label_smoothing == 0.1 and not pairs.pad_source
    optimizer = config.optimizer
    assert optimizer.decay == "linear" and optimizer.warmup_fraction == 0.06
    light = model == "10b" or task == "customization"
    assert optimizer.weight_decay == (0.01 if light else 0.1)
    sizes = {"cmrc": 8, "squad": 12, "squad_v1": 12}
    assert run.batch_size == (64 if model == "10b" else sizes.get(task, 16))
    assert run.initial_weights == f"checkpoints/glm_{model}"
    assert run.run_folder == f"runs/{name}"


@pytest.mark.parametrize(
    ("name", "rate", "steps", "lengths", "history"),
    [
        ("chatglm_ptuning", 2e-2, 3000, (64, 64), ""),
        ("chatglm_ptuning_chat", 1e-2, 3000, (256, 256), "history"),
        ("chatglm_full", 1e-4, 5000, (64, 64), ""),
    ],
)
def test_recipes_of_chatglm_are_the_published(name, rate, steps, lengths, history):
    config = read_finetuning([FOLDER / f"{name}.gin"])
    assert isinstance(config, Seq2SeqRunConfig)
    pairs, run, optimizer = config.seq2seq, config.finetune, config.optimizer
    assert (pairs.source_length, pairs.target_length) == lengths
    assert pairs.history_field == history
    assert optimizer.learning_rate == rate and run.max_steps == steps
    assert optimizer.decay == "linear" and optimizer.final_fraction == 0.0
    assert optimizer.warmup_fraction == 0.0 and optimizer.weight_decay == 0.0
    assert run.batch_size == 16 and run.num_steps(7162) == steps
    assert config.prefix.num_tokens == (0 if name == "chatglm_full" else 128)
    search = config.generation
    assert (search.temperature, search.top_p, search.top_k) == (0.95, 0.7, 50)
