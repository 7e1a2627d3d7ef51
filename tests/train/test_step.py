"""The update: micro-batches add up to the whole batch, bad updates are skipped."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from glm_jax.model import GLM, GLMConfig
from glm_jax.parallel.batches import micro_batches
from glm_jax.train.clipped_accumulation import clipped_means
from glm_jax.train.gradients import gradient_sums, make_loss_function, mean_gradients
from glm_jax.train.optimizer import OptimizerConfig, learning_rate_schedule, make_optimizer
from glm_jax.train.step import initial_state, make_train_step, step_settings

CONFIG = GLMConfig(
    vocab_size=64,
    num_layers=2,
    hidden_size=16,
    num_attention_heads=2,
    max_sequence_length=12,
    embedding_dropout=0.0,
    hidden_dropout=0.0,
    attention_dropout=0.0,
)
OPTIMIZER = OptimizerConfig(learning_rate=1e-2, decay_steps=10, warmup_fraction=0.0)


def random_batch(seed=0, size=8, length=12):
    draw = np.random.default_rng(seed)
    return {
        "tokens": jnp.array(draw.integers(0, 64, (size, length))),
        "targets": jnp.array(draw.integers(0, 64, (size, length))),
        # Very different numbers of targets, so that a mean of means would differ.
        "loss_mask": jnp.array(
            np.arange(length) >= draw.integers(1, length, (size, 1)), jnp.float32
        ),
        "position_ids": jnp.array(draw.integers(0, length, (size, 2, length))),
        "prefix_length": jnp.array(draw.integers(0, length, size)),
        "objective": jnp.zeros(size, jnp.int32),
    }


@pytest.fixture(scope="module")
def start():
    model, optimizer = GLM(CONFIG), make_optimizer(OPTIMIZER)
    batch = random_batch()
    variables = model.init(
        jax.random.key(0), batch["tokens"], batch["position_ids"], batch["prefix_length"]
    )
    return model, initial_state(nn.unbox(variables)["params"], optimizer)


def step_of(model, accumulation_steps=1):
    loss_of = make_loss_function(model)
    sums = partial(gradient_sums, loss_of, accumulation_steps=accumulation_steps)
    gradients_of = partial(mean_gradients, sums)
    step = jax.jit(make_train_step(gradients_of, OPTIMIZER))
    return lambda state, batch: step(state, batch, step_settings(OPTIMIZER, seed=0))


@pytest.mark.parametrize("count", [2, 8])
def test_micro_batches_give_the_same_loss_gradient_and_update(start, count):
    model, state = start
    batch = random_batch()
    whole, whole_metrics = step_of(model)(state, batch)
    split, split_metrics = step_of(model, count)(state, batch)
    for name in ("loss", "gradient_norm", "target_tokens"):
        np.testing.assert_allclose(whole_metrics[name], split_metrics[name], rtol=1e-5)
    # The moments are gradients and their squares; Adam's quotient would magnify roundings.
    first, second = (
        optax.tree_utils.tree_get(state.optimizer_state, "mu") for state in (whole, split)
    )
    for expected, found in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True):
        np.testing.assert_allclose(expected, found, rtol=1e-4, atol=1e-7)


def test_micro_batches_hold_every_row_once():
    batch = {"tokens": jnp.arange(24).reshape(12, 2)}
    split = micro_batches(batch, 3)["tokens"]
    assert split.shape == (3, 4, 2)
    np.testing.assert_array_equal(split[1], batch["tokens"][1::3])


@pytest.mark.parametrize("clip_norm", [0.5, 0.0])
def test_clipped_means_weigh_micro_batches_alike_and_clip_their_sum_after_each(start, clip_norm):
    model, state = start
    batch, key = random_batch(), jax.random.key(0)
    sums = partial(gradient_sums, make_loss_function(model))
    found = jax.jit(partial(clipped_means, sums, 4, clip_norm))(state.params, batch, key)
    whole = jax.jit(partial(mean_gradients, sums))
    expected, losses, norms = jax.tree.map(jnp.zeros_like, state.params), [], []
    for number in range(4):
        # One micro-batch by itself has the mean over its own targets.
        rows = {name: values[number::4] for name, values in batch.items()}
        part = whole(state.params, rows, key)
        losses.append(float(part.loss))
        expected = jax.tree.map(lambda total, one: total + one / 4, expected, part.values)
        norms.append(float(optax.global_norm(expected)))
        scale = min(1.0, clip_norm / norms[-1]) if clip_norm else 1.0
        expected = jax.tree.map(lambda total, scale=scale: total * scale, expected)
    assert max(norms) > clip_norm
    np.testing.assert_allclose(found.norms, norms, rtol=1e-5)
    assert float(found.loss) == pytest.approx(np.mean(losses), rel=1e-6)
    for ours, plain in zip(jax.tree.leaves(found.values), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(ours, plain, rtol=1e-4, atol=1e-7)
    # Another arithmetic than the mean over all targets, as the masks differ so much.
    mean_over_targets = float(whole(state.params, batch, key).loss)
    assert mean_over_targets != pytest.approx(float(found.loss), rel=1e-3)


def test_clipped_means_of_a_micro_batch_without_targets_are_finite(start):
    model, state = start
    batch = random_batch()
    batch["loss_mask"] = batch["loss_mask"].at[1::2].set(0.0)
    sums = partial(gradient_sums, make_loss_function(model))
    found = jax.jit(partial(clipped_means, sums, 2, 1.0))(state.params, batch, jax.random.key(0))
    assert np.isfinite(found.loss) and np.all(np.isfinite(found.norms))


def test_the_loss_is_the_mean_over_all_targets(start):
    model, state = start
    batch = random_batch()
    _, metrics = step_of(model)(state, batch)
    logits = model.apply(
        {"params": state.params}, batch["tokens"], batch["position_ids"], batch["prefix_length"]
    )
    losses = -jax.nn.log_softmax(logits)[
        np.arange(8)[:, None], np.arange(12)[None], batch["targets"]
    ]
    mask = np.array(batch["loss_mask"], bool)
    assert float(metrics["loss"]) == pytest.approx(float(np.mean(np.array(losses)[mask])), rel=1e-5)


def test_an_update_that_is_not_finite_is_skipped_and_counted(start):
    model, state = start
    bad = random_batch() | {"loss_mask": jnp.full((8, 12), jnp.inf)}
    after, metrics = step_of(model)(state, bad)
    assert not np.isfinite(metrics["loss"])
    assert (int(after.step), int(after.skipped), int(metrics["skipped_steps"])) == (1, 1, 1)
    unchanged = (state.params, state.optimizer_state), (after.params, after.optimizer_state)
    for before, now in zip(*map(jax.tree.leaves, unchanged), strict=True):
        np.testing.assert_array_equal(before, now)
    second, metrics = step_of(model)(after, random_batch())
    assert np.isfinite(metrics["loss"])
    # The rate is that of the first update, the one that is applied.
    schedule = learning_rate_schedule(OPTIMIZER)
    assert float(metrics["learning_rate"]) == float(schedule(0)) != float(schedule(1))
    third_metrics = step_of(model)(second, random_batch())[1]
    assert float(third_metrics["learning_rate"]) == float(schedule(1))
    alone, _ = step_of(model)(state.replace(step=jnp.asarray(1)), random_batch())
    for ours, expected in zip(*map(jax.tree.leaves, (second.params, alone.params)), strict=True):
        np.testing.assert_array_equal(ours, expected)


def test_dropout_is_drawn_anew_every_step_and_again_the_same():
    model = GLM(GLMConfig(**{**vars(CONFIG), "hidden_dropout": 0.5}))
    optimizer = make_optimizer(OPTIMIZER)
    batch = random_batch()
    variables = model.init(
        jax.random.key(0), batch["tokens"], batch["position_ids"], batch["prefix_length"]
    )
    state = initial_state(nn.unbox(variables)["params"], optimizer)
    step = step_of(model)
    first, again = step(state, batch)[1]["loss"], step(state, batch)[1]["loss"]
    other = step(state.replace(step=jnp.asarray(1)), batch)[1]["loss"]
    assert first == again
    assert first != other
