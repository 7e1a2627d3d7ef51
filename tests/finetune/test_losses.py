"""Losses, segments and ensembles against values computed by hand."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from glm_jax.finetune.ensemble import mean_over_patterns
from glm_jax.finetune.losses import LOSSES, SMOOTHED, example_losses
from glm_jax.finetune.segments import choice_scores

# Probabilities 1/7, 2/7, 4/7 of three choices; the last column is a choice that is not there.
SCORES = np.log([[1.0, 2.0, 4.0, 1e6]])
LABELS = jnp.asarray([1])
MASK = jnp.asarray([[1.0, 1.0, 1.0, 0.0]])
LOG2, LOG7 = np.log(2), np.log(7)
CROSS_ENTROPY = LOG7 - LOG2
# By hand: margins 1 + s - s_gold are 1 - log 2, 1 and 1 + log 2; the gold's own 1 goes again.
BY_HAND = {
    "cross_entropy": CROSS_ENTROPY,
    "hinge": (1 - LOG2) + 1 + (1 + LOG2) - 1,
    "generative": -LOG2,
    "mix": CROSS_ENTROPY - LOG2,
    "adapet": 0 - LOG2 + 2 * LOG2,
}


@pytest.mark.parametrize("loss", LOSSES)
def test_a_choice_that_is_not_there_changes_no_loss(loss):
    found = example_losses(loss, jnp.asarray(SCORES), LABELS, MASK)
    np.testing.assert_allclose(found, [BY_HAND[loss]], rtol=1e-5)
    alone = example_losses(loss, jnp.asarray(SCORES[:, :3]), LABELS, None)
    np.testing.assert_allclose(alone, [BY_HAND[loss]], rtol=1e-5)


@pytest.mark.parametrize("loss", SMOOTHED)
def test_smoothing_is_over_the_choices_that_are_there(loss):
    # The mean over the choices of -log p: log 7 - (0 + log 2 + log 4) / 3 = log 7 - log 2.
    found = example_losses(loss, jnp.asarray(SCORES), jnp.asarray([2]), MASK, 0.3)
    smoothed = 0.7 * (LOG7 - 2 * LOG2) + 0.3 * (LOG7 - LOG2)
    expected = smoothed - (2 * LOG2 if loss == "mix" else 0)
    np.testing.assert_allclose(found, [expected], rtol=1e-5)


def test_scores_of_segments_add_up_to_those_of_their_choices():
    batch = {
        "segment_ids": jnp.asarray([[0, 0, 1, 0], [0, 1, 1, 2]]),
        "segment_mask": jnp.asarray([[1.0, 1, 1, 0], [1, 1, 1, 1]]),
        "choice_mask": jnp.asarray([[1.0, 1, 0], [1, 1, 1]]),
    }
    scores = jnp.asarray([[-1.0, -2, -4, -100], [-1, -2, -4, -8]])
    assert choice_scores(scores, batch).tolist() == [[-3, -4, 0], [-1, -6, -8]]
    assert choice_scores(scores, {"choice_mask": batch["choice_mask"]}) is scores


def test_an_ensemble_averages_probabilities():
    by_pattern = np.log([[3.0, 1.0], [1.0, 1.0], [8.0, 8.0], [1.0, 4.0]])  # two patterns, N = 2
    averaged = mean_over_patterns(by_pattern, 2)
    np.testing.assert_allclose(averaged, [[0.625, 0.375], [0.35, 0.65]], rtol=1e-12)
    assert mean_over_patterns(by_pattern, 4) is by_pattern
    masked = np.asarray([[0.0, -10_000.0], [-5.0, -10_000.0]])
    np.testing.assert_allclose(mean_over_patterns(masked, 1), [[1, 0]], atol=1e-12)
