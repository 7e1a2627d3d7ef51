"""Rows whose tokens are learnt: their loss, and whether an answer is recognized."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from glm_jax.finetune.encoded import encode_examples
from glm_jax.finetune.language_model import (
    all_likeliest,
    is_language_model_batch,
    language_model_loss,
    recognition_scores,
)
from glm_jax.finetune.model_scores import Scorer
from glm_jax.model import GLM, GLMConfig
from glm_jax.tasks import Example, find_task
from tests.serve.tiny_checkpoint import MODEL, byte_tokenizer

LENGTH = 96


def wsc_example(number: int, antecedent: str, label: str = "True") -> Example:
    text = f"{antecedent} ran so it won"
    meta = {"span1_text": antecedent, "span2_text": "it", "span1_index": 0, "span2_index": 3}
    return Example(f"train-{number}", text, None, label, number, meta=meta)


@pytest.fixture(scope="module")
def rows():
    return encode_examples(
        find_task("wsc"),
        [wsc_example(0, "ab"), wsc_example(1, "cdef")],
        byte_tokenizer(),
        sequence_length=LENGTH,
        options={"negatives": False},
    )


@pytest.fixture(scope="module")
def scorer():
    fields: Any = MODEL | {"max_sequence_length": LENGTH}
    return Scorer(GLM(GLMConfig(**fields)), answer_length=6)


@pytest.fixture(scope="module")
def params(scorer, rows):
    batch = rows.batch(np.asarray([0]), 1)
    arrays = (batch[name] for name in ("tokens", "position_ids", "prefix_length"))
    return scorer.model.init(jax.random.key(0), *arrays)["params"]


def test_a_row_has_the_antecedent_and_no_choices(rows):
    assert (rows.num_choices, rows.answer_length) == (0, 6)  # a space, "cdef" and eop
    batch = rows.batch(np.asarray([0, 1]), 3)
    assert is_language_model_batch(batch) and "weight" not in batch
    special, prefix = byte_tokenizer().special, int(batch["prefix_length"][0])
    answer = [*byte_tokenizer().encode(" ab"), special["eop"]]
    scored = slice(prefix, prefix + len(answer))
    assert batch["tokens"][0, scored].tolist() == [special["sop"], *answer[:-1]]
    assert batch["targets"][0, scored].tolist() == answer
    # The last row only fills up the batch.
    assert batch["loss_mask"].sum(axis=1).tolist() == [4, 6, 0]


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_the_loss_is_the_mean_over_tokens(rows, scorer, params, smoothing):
    batch = {k: jnp.asarray(v) for k, v in rows.batch(np.asarray([0, 1]), 2).items()}
    logits = scorer.model.apply(
        {"params": params}, batch["tokens"], batch["position_ids"], batch["prefix_length"]
    )
    log_probabilities = np.asarray(jax.nn.log_softmax(logits), np.float64)
    expected = 0.0
    for row, position in np.argwhere(np.asarray(batch["loss_mask"])):
        at = log_probabilities[row, position]
        target = int(batch["targets"][row, position])
        expected -= (1 - smoothing) * at[target] + smoothing * at.mean()
    fields: Any = vars(scorer.model.config) | {"embedding_dropout": 0.0, "hidden_dropout": 0.0}
    quiet = Scorer(GLM(GLMConfig(**(fields | {"attention_dropout": 0.0}))), answer_length=6)
    found = language_model_loss(quiet, smoothing, params, batch, jax.random.key(1))
    np.testing.assert_allclose(found.loss, expected, rtol=1e-5)


def test_every_scored_token_has_to_be_the_likeliest():
    logits = jnp.zeros((4, 3, 5)).at[:, 0, 2].set(1.0).at[:, 1, 4].set(1.0).at[:, 2, 1].set(1.0)
    targets = jnp.asarray([[2, 4, 1], [2, 4, 0], [2, 4, 0], [0, 4, 1]])
    mask = jnp.asarray([[1.0, 1, 1], [1, 1, 1], [1, 1, 0], [1, 1, 1]])
    assert all_likeliest(logits, targets, mask).tolist() == [1, 0, 1, 0]


def test_an_answer_is_recognized_if_the_network_would_have_written_it(rows, scorer, params):
    """The decision rule of generative WSC, its end of piece included."""
    for index in (0, 1):
        batch = {k: jnp.asarray(v) for k, v in rows.batch(np.asarray([index]), 1).items()}
        logits = scorer.model.apply(
            {"params": params}, batch["tokens"], batch["position_ids"], batch["prefix_length"]
        )
        likeliest = jnp.argmax(logits, axis=-1)
        scored = np.flatnonzero(np.asarray(batch["loss_mask"])[0])
        written = batch | {"targets": jnp.where(batch["loss_mask"] > 0, likeliest, 0)}
        assert recognition_scores(scorer, params, written, None).tolist() == [[0, 1]]
        for position in scored:  # one token that is not the likeliest, the last one included
            wrong = written["targets"].at[0, position].add(1)
            scores = recognition_scores(scorer, params, written | {"targets": wrong}, None)
            assert scores.tolist() == [[1, 0]]
