"""How much a step computes, counted by hand, and batches made without data."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from glm_jax.configure import read_configuration
from glm_jax.finetune.batches import TrainingBatches, training_batches
from glm_jax.finetune.config import FinetuneRunConfig
from glm_jax.finetune.encoded import encode_examples
from glm_jax.finetune.placeholder import placeholder_batch
from glm_jax.finetune.shared_contexts import share_contexts
from glm_jax.finetune.splits import encoding_options
from glm_jax.finetune.step_size import StepSize, mean_step_size, step_size
from glm_jax.tasks import Example
from tests.serve.tiny_checkpoint import byte_tokenizer

SETTINGS = [
    "finetune.run_folder=run",
    "finetune.initial_weights=weights",
    "finetune.batch_size=4",
    "optimizer.learning_rate=1e-5",
    "task.data=data",
    "task.sequence_length=96",
]


def config_of(*settings: str) -> FinetuneRunConfig:
    return read_configuration([], [*SETTINGS, *settings], FinetuneRunConfig)


def test_logits_are_counted_where_they_are_computed():
    one_word = {"tokens": np.zeros((4, 64)), "targets": np.zeros((4, 2))}
    assert step_size(one_word) == StepSize(4, 64, 1 / 64)
    head = {"tokens": np.zeros((4, 2, 64))}
    assert step_size(head) == StepSize(8, 64, 0.0)
    answers = {"answer_ids": np.zeros((4, 2, 32)), "targets": np.zeros((4, 2, 32))}
    assert step_size(answers | {"tokens": np.zeros((4, 2, 128))}) == StepSize(8, 128, 0.25)


def test_the_mean_is_that_of_all_positions():
    short = {"tokens": np.zeros((4, 32)), "targets": np.zeros((4, 2))}
    long = {"tokens": np.zeros((4, 96)), "targets": np.zeros((4, 2))}
    mean = mean_step_size([short, long])
    assert (mean.rows, mean.length, mean.positions) == (4, 64, 256)
    assert mean.logit_share == pytest.approx(8 / 512)


COPA: dict[str, Any] = {
    "text_a": "It rained.",
    "text_b": "so",
    "label": 0,
    "meta": {"choice1": "The road was wet.", "choice2": "It was dry.", "question": "effect"},
}
RTE: dict[str, Any] = {"text_a": "It rained.", "text_b": "It was wet.", "label": "entailment"}
RECORD: dict[str, Any] = {
    "text_a": "a passage",
    "text_b": "who is @placeholder?",
    "label": "0",
    "num_choices": 10,
    "meta": {"candidates": list("abcdefghij"), "answers": ["a"]},
}


@pytest.mark.parametrize(
    ("name", "fields", "settings"),
    [
        ("rte", RTE, ["task.multi_token=True"]),
        ("rte", RTE, ["task.cloze=False"]),
        ("rte", RTE, ["task.multi_token=True", "prompt.prefix=2"]),
        ("copa", COPA, []),
        ("copa", COPA, ["task.cloze=False"]),
        ("record", RECORD, []),
    ],
)
def test_a_placeholder_has_the_arrays_of_a_batch(name, fields, settings):
    config = config_of(f"task.name={name}", *settings)
    task = config.task.task
    examples = [Example(f"train-{n}", idx=n, **fields) for n in range(4)]
    encoded = encode_examples(
        task,
        examples,
        byte_tokenizer(),
        sequence_length=96,
        options=encoding_options(config, task, examples),
    )
    real = share_contexts(next(training_batches(TrainingBatches(encoded, 4, 0))))
    made = placeholder_batch(config)
    assert {n: (v.ndim, v.dtype) for n, v in made.items()} == {
        n: (v.ndim, v.dtype) for n, v in real.items()
    }
    # Lengths differ, and nothing else does.
    lengths = {"tokens", "position_ids", "prompt_ids", "answer_ids", "targets", "loss_mask"}
    for array, values in made.items():
        axes = -1 if array in lengths else values.ndim
        assert values.shape[:axes] == real[array].shape[:axes], array


def test_a_placeholder_of_one_word_has_a_target_for_each_label():
    made = placeholder_batch(config_of("task.name=cb"))
    assert made["targets"].shape == (4, 3)
    assert made["tokens"].shape == (4, 96)
    assert made["loss_mask"].sum(axis=1).tolist() == [1, 1, 1, 1]
