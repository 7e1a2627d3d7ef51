"""Answers that share the row of their text have the scores and gradients of separate rows."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from glm_jax.finetune.encoded import encode_examples
from glm_jax.finetune.losses import masked_scores, mix
from glm_jax.finetune.model_scores import Scorer
from glm_jax.finetune.prompts import PromptEncoder
from glm_jax.finetune.shared_contexts import answers_room, share_contexts
from glm_jax.model import GLM, GLMConfig
from glm_jax.model.initial import initial_params
from glm_jax.tasks import Example, find_task
from glm_jax.tasks.catalog.multichoice import encode_multiple_choice
from glm_jax.tasks.sequence import collate_choices
from tests.serve.tiny_checkpoint import MODEL, byte_tokenizer

SCORE_TOLERANCE = 1e-5  # absolute, in nats
GRADIENT_TOLERANCE = 1e-5  # relative to the largest gradient of a parameter
ANSWERS = ["Ann", "Bo", "Chris", "Dee", "Eve", "Flo", "Gus"]


def model(**changes: Any) -> tuple[GLM, Any]:
    """A network whose tokens depend on all they see, and its parameters."""
    fields: Any = {**MODEL, "max_sequence_length": 512}
    made = GLM(GLMConfig(**{**fields, **changes}))
    params = jax.tree.map(
        lambda leaf: 3 * leaf.unbox(),
        initial_params(made, jax.random.key(0)),
        is_leaf=lambda leaf: hasattr(leaf, "unbox"),
    )
    return made, params


def record_examples(lengths: list[int], num_choices: list[int]) -> list[Example]:
    """Questions of ReCoRD with passages of these lengths, in tokens."""
    return [
        Example(
            f"train-{n}",
            ("passage " * length)[:length],
            f"who{n} is @placeholder?",
            "0",
            n,
            count,
            {"candidates": ANSWERS[:count], "answers": ANSWERS[:1]},
        )
        for n, (length, count) in enumerate(zip(lengths, num_choices, strict=True))
    ]


def encoded(lengths: list[int], num_choices: list[int], **options: Any):
    options = {"cloze": True, **options}
    examples = record_examples(lengths, num_choices)
    return encode_examples(
        find_task("record"), examples, byte_tokenizer(), sequence_length=96, options=options
    )


def batch_of(*arguments: Any, **options: Any) -> dict[str, np.ndarray]:
    rows = encoded(*arguments, **options)
    return rows.batch(np.arange(len(rows)), len(rows))


def unidirectional_batch() -> dict[str, np.ndarray]:
    rows = [
        encode_multiple_choice(
            Example("0", "a text that is read once", meta={"choices": ANSWERS[:n]}, label=0),
            byte_tokenizer(),
            sequence_length=64,
            unidirectional=True,
        )
        for n in (3, 5)
    ]
    return collate_choices(rows)


# Passages that fit, some of which are truncated, and all of which are.
BATCHES = {
    "equal contexts": lambda: batch_of([20, 31, 7], [7, 7, 7]),
    "missing choices": lambda: batch_of([20, 31, 7], [2, 7, 4]),
    "some truncated": lambda: batch_of([20, 80, 200], [7, 7, 3]),
    "left to right": unidirectional_batch,
}


def scores(scorer: Scorer, params: Any, batch: Any, key: Any = None) -> jax.Array:
    """Scores of real choices."""
    on_device = jax.tree.map(jnp.asarray, dict(batch))

    @jax.jit  # one program compiles faster than its operations
    def run(params, batch, key):
        return masked_scores(scorer(params, batch, key), batch["choice_mask"])

    return run(params, on_device, key)


@pytest.mark.parametrize(
    ("name", "attention"),
    [
        ("equal contexts", "xla"),
        ("missing choices", "by_head"),
        ("left to right", "xla"),
        *(
            pytest.param(name, attention, marks=pytest.mark.slow)
            for name, attention in (
                ("equal contexts", "by_head"),
                ("missing choices", "xla"),
                ("some truncated", "xla"),
                ("some truncated", "by_head"),
                ("left to right", "by_head"),
            )
        ),
    ],
)
def test_scores_are_those_of_separate_rows(name, attention):
    batch = BATCHES[name]()
    network, params = model(attention=attention)
    for penalty in (0.0, 0.7):
        scorer = Scorer(network, answer_length=64, length_penalty=penalty)
        expected = scores(scorer, params, batch)
        found = scores(scorer, params, share_contexts(batch))
        assert float(jnp.min(jnp.std(expected[:, :2], axis=1))) > 0.01
        np.testing.assert_allclose(found, expected, rtol=0, atol=SCORE_TOLERANCE)


def test_gradients_are_those_of_separate_rows():
    network, params = model()
    batch = BATCHES["some truncated"]()
    scorer = Scorer(network, answer_length=16)

    def gradients(batch: Any) -> Any:
        labels = jnp.asarray([1, 0, 2])
        return jax.grad(lambda params: mix(scores(scorer, params, batch), labels).sum())(params)

    found, expected = gradients(share_contexts(batch)), gradients(batch)
    for ours, naive in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        largest = float(jnp.max(jnp.abs(naive)))
        np.testing.assert_allclose(ours, naive, rtol=0, atol=GRADIENT_TOLERANCE * largest)


def test_continuous_prompts_are_in_the_shared_context():
    network, params = model()
    prompts = PromptEncoder(2, MODEL["hidden_size"], "mlp")
    params = {**params, "prompt_encoder": prompts.init(jax.random.key(1))["params"]}
    batch = batch_of([20, 69], [7, 5], prefix_prompt=2)
    scorer = Scorer(network, answer_length=16, prompts=prompts)
    expected = scores(scorer, params, batch)
    found = scores(scorer, params, share_contexts(batch))
    np.testing.assert_allclose(found, expected, rtol=0, atol=SCORE_TOLERANCE)
    without = scores(Scorer(network, answer_length=16), params, batch)
    assert float(jnp.abs(without - expected).max()) > 0.01


def test_a_text_has_one_row_unless_it_was_truncated():
    shared = share_contexts(BATCHES["equal contexts"]())
    length = shared["tokens"].shape[-1] - shared["answer_ids"].shape[-1]
    assert shared["tokens"].shape[:2] == (3, 1)
    assert shared["answer_ids"].max() == len(ANSWERS)
    assert (shared["context_length"] <= length).all()
    truncated = BATCHES["some truncated"]()
    # Answers of 4, 5 and 7 tokens: with a space before and the end.
    used = share_contexts(truncated)["answer_ids"].any(axis=-1)
    assert used.sum(axis=1).tolist() == [1, 3, 3]
    assert used.shape == (3, 4)


def test_rows_without_choices_stay_as_they_are():
    batch = {"tokens": np.zeros((2, 8), np.int32), "targets": np.zeros((2, 3), np.int32)}
    assert share_contexts(batch) is batch
    head = {"tokens": np.zeros((2, 3, 8), np.int32), "prefix_length": np.ones((2, 3), np.int32)}
    assert share_contexts(head) is head
    segments = BATCHES["equal contexts"]() | {"segment_ids": np.zeros((3, 7), np.int32)}
    assert share_contexts(segments) is segments


def test_room_for_answers_has_few_values():
    rooms = {tokens: answers_room(tokens) for tokens in (0, 1, 32, 33, 65, 96, 97, 129, 193, 257)}
    assert list(rooms.values()) == [32, 32, 32, 64, 96, 96, 128, 192, 256, 384]
    assert len({answers_room(tokens) for tokens in range(1, 1025)}) == 10


def test_dropout_follows_its_key_and_differs_between_equal_answers():
    network, params = model(hidden_dropout=0.5, attention_dropout=0.5)
    batch = batch_of([20], [3])
    # The same answer three times.
    same = {
        name: np.repeat(values[:, :1], 3, axis=1) if values.ndim > 1 else values
        for name, values in batch.items()
    }
    scorer = Scorer(network, answer_length=16)
    shared = scores(scorer, params, share_contexts(same), jax.random.key(0))
    again = scores(scorer, params, share_contexts(same), jax.random.key(1))
    assert float(jnp.abs(shared - again).max()) > 0.01
    # The context is one array for all answers; what they drop themselves differs.
    assert len(np.unique(np.asarray(shared))) == 3
