"""Losses, gradients and optimizer steps against those recorded from the original code.

Everything is driven by what a folder holds (`info.json`, `io.npz`, `ckpt_init`), so that recordings
of other seeds, sizes and settings go the same way.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from glm_jax.parallel.batches import Batch
from glm_jax.train.clipped_accumulation import clipped_means
from glm_jax.train.gradients import (
    Gradients,
    gradient_sums,
    make_loss_function,
    mean_gradients,
)
from glm_jax.train.loss import mask_normalizer, smoothed_token_losses, token_losses
from glm_jax.train.optimizer import is_decayed, make_optimizer
from glm_jax.train.step import TrainState, initial_state, make_train_step, step_settings
from tests.parity.golden_schedules import NEAR_ZERO, learning_rates, schedule_rows
from tests.parity.recording import Recording, open_recording
from tests.parity.rows import Row, absolute, folders, guarded, largest, relative

LOGITS = 1e-4
LOSS = 1e-6
LEARNING_RATE = 1e-9
GRADIENT = 1e-3
# 1e-5 absolute.
SMALLEST_GRADIENT = 1e-5 / GRADIENT

# 1e-9 absolute: rounding of the softmax of a probable target, whose gradient is p - 1.
SMALLEST_BY_LOGITS = 1e-9 / GRADIENT
TO_LARGEST = 1e-5

# Adam divides by the size of a gradient, and so makes the rounding of the smallest ones visible.
PARAMETER = 1e-4
NORM = 1e-5
CHECKSUM = 1e-5

SMOOTHED = "grad/loss_label_smoothing_"
KEY_BIAS = "attention.query_key_value.bias"


def loss_rows(recording: Recording) -> Iterator[Row]:
    """Logits, losses and gradients of the batch named `grad`, before clipping."""
    golden, arrays = recording.golden, recording.arrays
    smoothings = {
        key: float(key.removeprefix(SMOOTHED)) for key in arrays if key.startswith(SMOOTHED)
    }
    seen = _observe(recording, tuple(smoothings.values()))
    difference = absolute(seen["logits"], arrays["grad/logits"])
    yield Row(golden, "logits", LOGITS, difference)
    difference = absolute(seen["token_losses"], arrays["grad/token_losses"])
    yield Row(golden, "loss of every token", LOGITS, difference)
    difference = relative(seen["gradients"].loss, arrays["grad/loss"])
    yield Row(golden, "loss (relative)", LOSS, difference)
    for (key, smoothing), loss in zip(smoothings.items(), seen["smoothed"], strict=True):
        quantity = f"loss with label smoothing {smoothing:g} (relative)"
        yield Row(golden, quantity, LOSS, relative(loss, arrays[key]))
    difference = absolute(seen["empty"], arrays["grad/loss_empty_mask"])
    yield Row(golden, "loss under an empty mask", 0.0, difference)
    yield from _gradient_rows(recording, seen["by_logits"], seen["gradients"])


def _observe(recording: Recording, smoothings: tuple[float, ...]) -> dict[str, Any]:
    """Everything that is recorded of the batch named `grad`, compiled as one program."""
    model = recording.model
    gradients_of = partial(mean_gradients, partial(gradient_sums, make_loss_function(model)))

    def mean(values: jax.Array, mask: jax.Array) -> jax.Array:
        return jnp.sum(values * mask) / mask_normalizer(mask)

    @jax.jit
    def observe(params: Any, batch: Batch) -> dict[str, Any]:
        inputs = batch["tokens"], batch["position_ids"], batch["prefix_length"]
        targets, mask = batch["targets"], batch["loss_mask"]
        logits = jnp.asarray(model.apply({"params": params}, *inputs))
        losses = token_losses(logits, targets)
        return {
            "logits": logits,
            "token_losses": losses,
            "smoothed": [mean(smoothed_token_losses(logits, targets, s), mask) for s in smoothings],
            "empty": mean(losses, jnp.zeros_like(mask)),
            "by_logits": jax.grad(lambda logits: mean(token_losses(logits, targets), mask))(logits),
            "gradients": gradients_of(params, batch, jax.random.key(0)),
        }

    return observe(recording.params, recording.batch("grad"))


def _gradient_rows(
    recording: Recording, by_logits: jax.Array, gradients: Gradients
) -> Iterator[Row]:
    golden, arrays = recording.golden, recording.arrays
    difference = relative(by_logits, arrays["grad/d_logits"], SMALLEST_GRADIENT)
    yield Row(golden, "gradient by the logits (relative, or 1e-5 absolute)", GRADIENT, difference)
    # Most of them are below 1e-5, the softmax of improbable tokens.
    difference = relative(by_logits, arrays["grad/d_logits"], SMALLEST_BY_LOGITS)
    yield Row(golden, "gradient by the logits (relative, or 1e-9 absolute)", GRADIENT, difference)
    found, recorded = recording.state_dict(gradients.values), _named(arrays, "grad/param/")
    yield Row(golden, "parameters without a gradient", 0.0, len(found.keys() ^ recorded.keys()))
    difference = largest(relative(found[n], recorded[n], SMALLEST_GRADIENT) for n in recorded)
    yield Row(
        golden, "gradient by every parameter (relative, or 1e-5 absolute)", GRADIENT, difference
    )
    difference = largest(_to_largest(found[n], recorded[n]) for n in recorded)
    quantity = "gradient by every parameter (relative to the largest of it)"
    yield Row(golden, quantity, TO_LARGEST, difference)
    difference = relative(gradients.norms[0], recording.info["grad_global_norm_before_clip"])
    yield Row(golden, "global gradient norm (relative)", NORM, difference)


def step_rows(recording: Recording) -> Iterator[Row]:
    """The recorded steps, with the original's accumulation; a row is the worst of all steps."""
    golden, steps = recording.golden, recording.info["steps"]
    decayed = {name for name, is_in in _decay_groups(recording).items() if is_in}
    wrong = decayed ^ set(recording.info["weight_decay_group"])
    yield Row(golden, "parameters in the wrong decay group", 0.0, len(wrong))

    state, losses, norms, sums = _run_steps(recording)
    recorded = [step["loss"] for step in steps]
    yield Row(golden, "loss of every step (relative)", LOSS, relative(losses, recorded))
    if recording.optimizer.clip_norm:  # without clipping the original has no norms
        recorded = [step["grad_norms_at_each_clip"] for step in steps]
        yield Row(golden, "norm at every clip (relative)", NORM, relative(norms, recorded))
    rates = learning_rates(recording.optimizer, 0, len(steps) + 1)
    recorded = [step["lr_used"] for step in steps] + [steps[-1]["lr_after"]]
    difference = relative(rates, recorded, NEAR_ZERO * recording.optimizer.learning_rate)
    yield Row(golden, "learning rate of every step (relative)", LEARNING_RATE, difference)
    difference = largest(
        _checksum_gap(found[name], checksums)
        for found, step in zip(sums, steps, strict=True)
        for name, checksums in step["param_checksums"].items()
        if KEY_BIAS not in name
    )
    quantity = "sums over every parameter after every step (relative to the sum of magnitudes)"
    yield Row(golden, quantity, CHECKSUM, difference)
    yield from _final_rows(recording, state)


def _run_steps(
    recording: Recording,
) -> tuple[TrainState, list[float], list[np.ndarray], list[dict[str, np.ndarray]]]:
    """The state after all steps; loss, norms and parameters of each."""
    optimizer = make_optimizer(recording.optimizer)
    gradients_of = partial(
        clipped_means,
        partial(gradient_sums, make_loss_function(recording.model)),
        recording.accumulation_steps,
        recording.optimizer.clip_norm,
    )
    train_step = make_train_step(gradients_of, recording.optimizer)
    settings = step_settings(recording.optimizer, seed=0)

    @jax.jit
    def observed_step(state: TrainState, batch: Batch):
        # Without dropout the key doesn't matter, and these are the step's own gradients.
        gradients = gradients_of(state.params, batch, jax.random.key(0))
        return train_step(state, batch, settings), gradients.norms

    state = initial_state(recording.params, optimizer)
    losses, norms, params = [], [], []
    for step in range(len(recording.info["steps"])):
        (state, metrics), step_norms = observed_step(state, recording.step_batch(step))
        losses.append(float(metrics["loss"]))
        norms.append(np.asarray(step_norms))
        params.append(recording.state_dict(state.params))
    return state, losses, norms, params


def _final_rows(recording: Recording, state: TrainState) -> Iterator[Row]:
    """Parameters and moments after the last step."""
    golden, arrays = recording.golden, recording.arrays
    final = recording.state_dict(state.params)
    recorded = _named(arrays, "final/")
    difference = largest(parameter_gap(name, final[name], recorded[name]) for name in recorded)
    yield Row(golden, "every parameter after the last step", PARAMETER, difference)
    for ours, theirs in (("mu", "exp_avg"), ("nu", "exp_avg_sq")):
        moments = recording.state_dict(optax.tree_utils.tree_get(state.optimizer_state, ours))
        recorded = _named(arrays, f"final_{theirs}_checksum/")
        difference = largest(_moment_gap(moments[name], recorded[name]) for name in recorded)
        yield Row(golden, f"sums over the moment {theirs} (relative)", CHECKSUM, difference)


def _to_largest(array: np.ndarray, recorded: np.ndarray) -> float:
    """The largest difference as a fraction of the largest recorded magnitude."""
    return relative(absolute(array, recorded), 0.0, smallest=float(np.abs(recorded).max()))


def _checksum_gap(array: np.ndarray, recorded: Mapping[str, float]) -> float:
    """The largest difference of the sums, each as a fraction of the recorded sum of its terms."""
    values = array.astype(np.float64)
    magnitude, squares = recorded["abs_sum"], recorded["sq_sum"]
    gap = values.sum() - recorded["sum"]
    return largest(
        [
            relative(gap, 0.0, smallest=abs(magnitude)),
            relative(np.abs(values).sum(), magnitude),
            relative(np.square(values).sum(), squares),
        ]
    )


def _moment_gap(array: np.ndarray, recorded: np.ndarray) -> float:
    """The recorded sum, and the sum of magnitudes where there is one, beside ours."""
    values = array.astype(np.float64)
    ours = np.array([values.sum(), np.abs(values).sum()])[: len(recorded)]
    return relative(ours - recorded, np.zeros_like(ours), smallest=float(np.abs(recorded[-1])))


def parameter_gap(name: str, ours: np.ndarray, recorded: np.ndarray) -> float:
    """Largest difference of a parameter after steps, leaving out the key's third of a fused bias.

    Softmax doesn't see it, so that its gradient is rounding noise, which Adam scales up to updates
    of the size of the learning rate.
    """
    if KEY_BIAS not in name:
        return absolute(ours, recorded)
    return largest(
        absolute(*thirds)
        for third, thirds in enumerate(zip(np.split(ours, 3), np.split(recorded, 3), strict=True))
        if third != 1
    )


def _decay_groups(recording: Recording) -> dict[str, bool]:
    mask = is_decayed(recording.params)
    broadcast = jax.tree.map(lambda array, flag: np.full_like(array, flag), recording.params, mask)
    return {name: bool(array.flat[0]) for name, array in recording.state_dict(broadcast).items()}


def _named(arrays: Mapping[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    return {key.removeprefix(prefix): arrays[key] for key in arrays if key.startswith(prefix)}


def training_rows(goldens: Path) -> Iterator[Row]:
    """Rows of everything under `c_training`."""
    for folder in folders(goldens / "c_training"):
        golden = f"c_training/{folder.name}"
        yield from guarded(golden, partial(folder_rows, folder, golden))


def folder_rows(folder: Path, golden: str) -> Iterator[Row]:
    """Rows of one folder: a run, or learning rates."""
    if (folder / "lr.json").exists():
        yield from schedule_rows(folder / "lr.json", golden)
    if (folder / "info.json").exists():
        recording = open_recording(folder, golden)
        yield from loss_rows(recording)
        yield from step_rows(recording)
