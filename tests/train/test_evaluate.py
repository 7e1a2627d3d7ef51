"""Evaluation adds up over batches and objectives, and its baseline is the targets' entropy."""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
import pytest

from glm_jax.errors import RunError, UsageError
from glm_jax.train.evaluate import EvaluationConfig, entropy, evaluate, make_evaluation_step


class Certain(nn.Module):
    """Predicts token 1 everywhere with logit 1 against 0."""

    vocab_size: int = 4

    def hidden_states(self, tokens, position_ids, prefix_length):
        return jnp.ones((*tokens.shape, 1))

    def embedding_table(self):
        return jnp.zeros((self.vocab_size, 1)).at[1].set(1.0)


def batch(targets, objective, loss_mask):
    targets = jnp.array(targets)
    return {
        "tokens": targets,
        "targets": targets,
        "loss_mask": jnp.array(loss_mask, jnp.float32),
        "position_ids": jnp.zeros((targets.shape[0], 2, targets.shape[1]), jnp.int32),
        "prefix_length": jnp.zeros(targets.shape[0], jnp.int32),
        "objective": jnp.array(objective),
    }


RIGHT = -np.log(np.e / (np.e + 3))
WRONG = -np.log(1 / (np.e + 3))


def test_scores_are_means_over_targets_not_over_batches():
    batches = [
        batch([[1, 1, 2]], [0], [[1, 1, 1]]),
        batch([[1, 2, 2], [2, 3, 3]], [2, 0], [[1, 0, 0], [1, 0, 0]]),
    ]
    result = evaluate(make_evaluation_step(Certain()), {}, batches)
    assert result.overall.target_tokens == 5
    assert result.overall.loss == pytest.approx((3 * RIGHT + 2 * WRONG) / 5, rel=1e-6)
    assert result.overall.accuracy == pytest.approx(3 / 5)
    assert set(result.by_objective) == {"token", "document"}
    assert result.by_objective["token"].loss == pytest.approx((2 * RIGHT + 2 * WRONG) / 4, rel=1e-6)
    assert result.by_objective["document"].accuracy == 1.0
    expected = -(3 / 5 * np.log(3 / 5) + 2 / 5 * np.log(2 / 5))
    assert result.unigram_entropy == pytest.approx(expected, rel=1e-6)
    assert f"{expected:.3f}" in result.describe()
    gap = abs(expected - result.overall.loss)
    side = "below" if result.overall.loss < expected else "above"
    assert f"{gap:.3f} {side}" in result.describe()


def test_entropy_of_a_uniform_distribution():
    assert entropy(np.array([0.0, 5.0, 5.0, 5.0, 5.0])) == pytest.approx(np.log(4))


@pytest.mark.parametrize("batches", [[], [batch([[1, 1]], [0], [[0, 0]])]], ids=["none", "masked"])
def test_nothing_to_evaluate_is_said(batches):
    with pytest.raises(RunError, match="no target token"):
        evaluate(make_evaluation_step(Certain()), {}, batches)


@pytest.mark.parametrize(
    ("proportions", "message"),
    [
        ({"tokens": 1.0}, "evaluation.proportions gives tokens 1.0; expected at least 0 for each"),
        ({"token": -1.0}, "evaluation.proportions gives token -1.0; expected at least 0 for each"),
        ({"token": 0.0}, "evaluation.proportions are all 0; expected one above 0"),
    ],
)
def test_impossible_proportions_are_refused(proportions, message):
    with pytest.raises(UsageError, match=message):
        EvaluationConfig(proportions=proportions)
