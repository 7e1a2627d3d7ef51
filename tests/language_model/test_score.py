"""Perplexity over windows and LAMBADA accuracy, against full forward passes one by one."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from glm_jax.language_model.lambada import lambada_row
from glm_jax.language_model.perplexity import (
    Document,
    document_losses,
    perplexities,
    rows_of_documents,
)
from glm_jax.language_model.score import score_rows
from glm_jax.language_model.windows import WindowLayout, document_rows
from glm_jax.model import GLM, GLMConfig
from glm_jax.model.initial import initial_params
from glm_jax.parallel.mesh import MeshConfig, make_mesh
from tests.serve.tiny_checkpoint import byte_tokenizer

CONFIG = GLMConfig(
    vocab_size=384, num_layers=2, hidden_size=32, num_attention_heads=2, max_sequence_length=64
)
SPECIAL = byte_tokenizer().special


@pytest.fixture(scope="module")
def network():
    mesh = make_mesh(MeshConfig())
    model = GLM(CONFIG)
    from flax import linen as nn

    params = nn.unbox(initial_params(model, jax.random.key(3)))
    # Larger weights than initial ones, so that context matters.
    params = jax.tree.map(lambda leaf: 3 * leaf if leaf.ndim > 1 else leaf, params)
    replicated = jax.NamedSharding(mesh, jax.P())
    return model, jax.device_put(params, replicated), mesh


def plain_log_probs(network, row) -> np.ndarray:
    """The log-probabilities of the scored tokens of one row, all logits of one forward pass."""
    model, params, _ = network
    logits = model.apply(
        {"params": params},
        jnp.asarray(row["tokens"])[None],
        jnp.asarray(row["position_ids"])[None],
        jnp.asarray(row["prefix_length"])[None],
    )
    log_probs = jax.nn.log_softmax(np.asarray(logits, np.float64)[0])
    scored = np.flatnonzero(row["loss_mask"])
    return np.asarray(log_probs)[scored, row["targets"][scored]]


@pytest.mark.parametrize("unidirectional", [False, True])
@pytest.mark.parametrize("stride", [3, 30])
def test_scores_are_those_of_single_forward_passes(network, stride, unidirectional):
    model, params, mesh = network
    random = np.random.default_rng(0)
    documents = [Document(random.integers(97, 122, n).tolist(), n, 2 * n) for n in (70, 2, 33)]
    layout = WindowLayout(SPECIAL, 32, stride, unidirectional)
    rows, numbers = rows_of_documents(documents, layout)
    scores = score_rows(model, params, rows, mesh, 4)
    losses = document_losses(scores, numbers, len(documents))
    assert [len(values) for values in losses] == [69, 1, 32]
    expected = -np.concatenate([plain_log_probs(network, row) for row in rows])
    np.testing.assert_allclose(np.concatenate(losses), expected, atol=1e-5)
    found = perplexities(documents, losses)
    assert found["token_perplexity"] == pytest.approx(np.exp(expected.sum() / 102), rel=1e-5)
    assert found["word_perplexity"] == pytest.approx(np.exp(expected.sum() / 102), rel=1e-5)
    assert found["byte_perplexity"] == pytest.approx(np.exp(expected.sum() / 210), rel=1e-5)


def test_stride_1_gives_the_exact_conditional_probability_of_every_token(network):
    model, params, mesh = network
    ids = np.random.default_rng(1).integers(97, 122, 12).tolist()
    rows = list(document_rows(ids, WindowLayout(SPECIAL, 8, 1)))
    scores = score_rows(model, params, rows, mesh, 2)
    found = np.concatenate([row.log_probs for row in scores])
    mask = SPECIAL["gMASK"]
    for position in range(7, len(ids)):
        # The six tokens before it, read in both directions, then its blank.
        context = [SPECIAL["ENC"], *ids[position - 6 : position], mask]
        tokens = jnp.asarray([[*context, SPECIAL["sop"]]])
        places = jnp.asarray([[[*range(8), 7], [*[0] * 8, 1]]])
        logits = model.apply({"params": params}, tokens, places, jnp.asarray([8]))
        expected = jax.nn.log_softmax(logits[0, -1])[ids[position]]
        assert found[position - 1] == pytest.approx(float(expected), abs=1e-5)


@pytest.mark.parametrize("unidirectional", [False, True])
def test_a_word_is_right_when_all_its_tokens_are_the_most_probable(network, unidirectional):
    model, params, mesh = network
    tokenizer = byte_tokenizer()
    passages = [f"some words here {word}" for word in ("abc", "a", "zz")]
    rows = [lambada_row(p, tokenizer, 48, unidirectional=unidirectional) for p in passages]
    for row, scores in zip(rows, score_rows(model, params, rows, mesh, 2), strict=True):
        np.testing.assert_allclose(scores.log_probs, plain_log_probs(network, row), atol=1e-5)
        inputs = [jnp.asarray(row[n])[None] for n in ("tokens", "position_ids", "prefix_length")]
        best = np.asarray(jnp.argmax(model.apply({"params": params}, *inputs)[0], axis=-1))
        scored = np.flatnonzero(row["loss_mask"])
        np.testing.assert_array_equal(scores.right, best[scored] == row["targets"][scored])
