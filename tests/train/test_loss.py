"""The loss is a sum over masked targets, whatever the batch is split into."""

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from glm_jax.train.loss import (
    gather_targets,
    mask_normalizer,
    masked_loss_sum,
    objective_sums,
    smoothed_token_losses,
    token_losses,
)


def test_token_losses_are_negative_log_probabilities():
    logits = jax.random.normal(jax.random.key(0), (2, 3, 5))
    targets = jnp.array([[0, 1, 2], [3, 4, 0]])
    probabilities = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    expected = -np.log(np.take_along_axis(probabilities, np.array(targets)[..., None], -1)[..., 0])
    np.testing.assert_allclose(token_losses(logits, targets), expected, rtol=1e-5)


def test_smoothed_losses_are_the_cross_entropy_with_smoothed_targets():
    logits = jax.random.normal(jax.random.key(1), (2, 3, 5))
    targets = jnp.array([[0, 1, 2], [3, 4, 0]])
    wanted = 0.7 * np.eye(5)[targets] + 0.3 / 5
    expected = -np.sum(wanted * np.array(jax.nn.log_softmax(logits)), axis=-1)
    np.testing.assert_allclose(smoothed_token_losses(logits, targets, 0.3), expected, rtol=1e-5)


def test_an_empty_mask_has_loss_zero_and_no_gradient():
    targets, mask = jnp.zeros((1, 2), jnp.int32), jnp.zeros((1, 2))

    def loss(logits):
        return masked_loss_sum(logits, targets, mask) / mask_normalizer(mask)

    value, gradient = jax.value_and_grad(loss)(jnp.ones((1, 2, 4)))
    assert value == 0.0
    assert not np.any(gradient)


def test_objective_sums_add_the_rows_of_each_objective():
    values = jnp.array([1.0, 2.0, 10.0, 20.0, 100.0, 200.0])
    sums = objective_sums(values, jnp.array([2, 2, 0, 0, 2, 2]), 4)
    np.testing.assert_array_equal(sums, [30.0, 0.0, 303.0, 0.0])


@given(seed=st.integers(0, 99), share=st.floats(0.0, 1.0), fraction=st.floats(0.01, 1.0))
def test_gathering_keeps_every_target_that_has_a_place(seed, share, fraction):
    draw = np.random.default_rng(seed)
    mask = jnp.asarray(draw.random((4, 128)) < share, jnp.float32)
    targets = jnp.asarray(draw.integers(0, 1000, (4, 128)), jnp.int32)
    hidden = jnp.stack([targets, targets + 1], axis=-1).astype(jnp.float32)
    rows, overflow = gather_targets(hidden, targets, mask, fraction)
    places = len(rows.targets)
    assert fraction * 512 <= places < fraction * 512 + 128 and places <= 512
    assert int(overflow) == max(int(mask.sum()) - places, 0)
    counted = np.asarray(rows.loss_mask) > 0
    expected = np.asarray(targets)[np.asarray(mask) > 0][:places]
    np.testing.assert_array_equal(np.asarray(rows.targets)[counted], expected)
    np.testing.assert_array_equal(np.asarray(rows.hidden)[counted, 1], expected + 1)


def test_padding_of_gathered_targets_gets_no_gradient():
    mask = jnp.zeros((2, 128)).at[0, 5].set(1.0)

    def loss(hidden):
        rows, _ = gather_targets(hidden, jnp.zeros((2, 128), jnp.int32), mask, 0.5)
        return jnp.sum(rows.hidden)

    gradient = jax.grad(loss)(jnp.ones((2, 128, 3)))
    np.testing.assert_array_equal(gradient, np.zeros((2, 128, 3)) + np.asarray(mask)[..., None])
