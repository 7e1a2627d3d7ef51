"""The PyTorch twin against the recorded numbers, and our network and training against the twin."""

from __future__ import annotations

import dataclasses
import json
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch", reason="torch is not installed")

from glm_jax.model import GLM, GLMConfig  # noqa: E402
from glm_jax.parity.torch_reference import TorchGLM  # noqa: E402
from glm_jax.train.clipped_accumulation import clipped_means  # noqa: E402
from glm_jax.train.gradients import (  # noqa: E402
    gradient_sums,
    make_loss_function,
    mean_gradients,
)
from glm_jax.train.optimizer import (  # noqa: E402
    DECAYS,
    OptimizerConfig,
    make_optimizer,
)
from glm_jax.train.step import initial_state, make_train_step, step_settings  # noqa: E402
from tests.parity import golden_training, torch_glm  # noqa: E402
from tests.parity.golden_schedules import learning_rates  # noqa: E402
from tests.parity.recording import Recording, open_recording  # noqa: E402
from tests.parity.rows import absolute, largest, relative  # noqa: E402
from tests.parity.state_dict import read_state, to_params, to_state  # noqa: E402

HIDDEN = 1e-4


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def make_twin(state: dict[str, np.ndarray], num_attention_heads: int) -> TorchGLM:
    """The twin with the dimensions and values of a state dict."""
    words = state["word_embeddings.weight"]
    twin = TorchGLM(
        vocab_size=words.shape[0],
        num_layers=sum(name.endswith(".input_layernorm.bias") for name in state),
        hidden_size=words.shape[1],
        num_attention_heads=num_attention_heads,
        position_rows=len(state["transformer.position_embeddings.weight"]),
        block_position_encoding="transformer.block_position_embeddings.weight" in state,
    )
    torch_glm.load_state(twin, state)
    return twin


# The twin against the original.


def forward_folders(shared: Path) -> list[Path]:
    folders = sorted((shared / "goldens/a_forward").iterdir())
    return [
        folder
        for folder in folders
        if not json.loads((folder / "config.json").read_text())["relative_encoding"]
    ]


def test_the_twins_forward_pass_equals_the_recorded_ones(shared):
    compared = 0
    for folder in forward_folders(shared):
        config = json.loads((folder / "config.json").read_text())
        twin = make_twin(read_state(folder / "ckpt"), config["num_attention_heads"])
        arrays = np.load(folder / "io.npz")
        for case in {key.split("/")[0] for key in arrays}:
            if case.startswith(("inc_", "bounded_")) and case not in ("inc_prefix", "inc_full"):
                continue  # the twin has no memory
            names = ("tokens", "position_ids", "attention_mask")
            with torch.no_grad():
                outputs = twin(*(torch.tensor(arrays[f"{case}/{name}"]) for name in names))
            found = {"hidden": outputs.final_hidden, "logits": outputs.logits}
            found |= {f"mem_{i}": hidden for i, hidden in enumerate(outputs.hidden_states)}
            for name, values in found.items():
                if f"{case}/{name}" in arrays:
                    difference = absolute(values.numpy(), arrays[f"{case}/{name}"])
                    assert difference <= HIDDEN, (folder.name, case, name)
                    compared += 1
    assert compared > 0


def recordings(shared: Path) -> list[Recording]:
    folders = sorted((shared / "goldens/c_training").glob("*/info.json"))
    return [open_recording(file.parent, file.parent.name) for file in folders]


def twin_of(recording: Recording) -> TorchGLM:
    state = recording.state_dict(recording.params)
    return make_twin(state, recording.model.config.num_attention_heads)


def test_the_twins_losses_and_gradients_equal_the_recorded_ones(shared):
    for recording in recordings(shared):
        arrays, twin = recording.arrays, twin_of(recording)
        batch = torch_glm.torch_batch(recording.batch("grad"))
        logits = torch_glm.logits_of(twin, batch)
        loss = torch_glm.mean_loss(logits, batch)
        loss.backward()
        assert relative(loss.detach(), arrays["grad/loss"]) <= golden_training.LOSS
        smoothed = torch_glm.mean_loss(logits, batch, label_smoothing=0.1).detach()
        recorded = arrays["grad/loss_label_smoothing_0.1"]
        assert relative(smoothed, recorded) <= golden_training.LOSS
        for name, gradient in torch_glm.gradients_by_name(twin).items():
            difference = relative(
                gradient, arrays[f"grad/param/{name}"], golden_training.SMALLEST_GRADIENT
            )
            assert difference <= golden_training.GRADIENT, name


def test_the_twins_steps_equal_the_recorded_ones(shared):
    for recording in recordings(shared):
        twin, count = twin_of(recording), recording.accumulation_steps
        optimizer = torch_glm.AdamW(twin, recording.optimizer)
        assert optimizer.decayed == set(recording.info["weight_decay_group"])
        for number, step in enumerate(recording.info["steps"]):
            parts = [recording.batch(f"step_batch_{number * count + i}") for i in range(count)]
            micro_batches = [torch_glm.torch_batch(part) for part in parts]
            rate = torch_glm.learning_rate(recording.optimizer, number)
            outcome = torch_glm.train_step(twin, optimizer, micro_batches, rate)
            assert relative(outcome.loss, step["loss"]) <= golden_training.LOSS
            difference = relative(outcome.norms, step["grad_norms_at_each_clip"])
            assert difference <= golden_training.NORM
            assert relative(rate, step["lr_used"]) <= golden_training.LEARNING_RATE
        for name, array in torch_glm.parameters_by_name(twin).items():
            recorded = recording.arrays[f"final/{name}"]
            difference = golden_training.parameter_gap(name, array, recorded)
            assert difference <= golden_training.PARAMETER, name


# Our network and training against the twin.


@dataclasses.dataclass(frozen=True)
class Case:
    """A network of random dimensions on both sides, and a batch of it."""

    twin: TorchGLM
    model: GLM
    params: dict
    batch: dict[str, np.ndarray]


def draw_case(seed: int) -> Case:
    draw = np.random.default_rng(seed)
    heads, num_layers = int(draw.integers(1, 5)), int(draw.integers(1, 4))
    config = GLMConfig(
        vocab_size=int(draw.integers(20, 90)),
        num_layers=num_layers,
        hidden_size=heads * int(draw.integers(3, 13)),
        num_attention_heads=heads,
        max_sequence_length=int(draw.integers(12, 30)),
        block_position_encoding=seed % 3 != 2,
        embedding_dropout=0.0,
        hidden_dropout=0.0,
        attention_dropout=0.0,
    )
    twin = TorchGLM(
        vocab_size=config.vocab_size,
        num_layers=num_layers,
        hidden_size=config.hidden_size,
        num_attention_heads=heads,
        position_rows=config.num_positions,
        block_position_encoding=config.block_position_encoding,
    )
    state = torch_glm.random_state(twin, seed)
    torch_glm.load_state(twin, state)
    shape = (2 * int(draw.integers(1, 4)), int(draw.integers(5, config.max_sequence_length)))
    prefix_length = draw.integers(0, shape[1] + 1, shape[0])
    batch = {
        "tokens": draw.integers(0, config.vocab_size, shape),
        "targets": draw.integers(0, config.vocab_size, shape),
        "loss_mask": (draw.random(shape) < draw.random((shape[0], 1))).astype(np.float32),
        "position_ids": draw.integers(0, config.num_positions, (shape[0], 2, shape[1])),
        "prefix_length": prefix_length,
    }
    return Case(twin, GLM(config), to_params(state), batch)


@pytest.mark.parametrize("seed", range(3))
def test_our_logits_losses_and_gradients_equal_the_twins(seed):
    case = draw_case(seed)
    batch = torch_glm.torch_batch(case.batch)
    logits = torch_glm.logits_of(case.twin, batch)
    loss = torch_glm.mean_loss(logits, batch)
    loss.backward()

    ours = case.model.apply(
        {"params": case.params},
        *(case.batch[name] for name in ("tokens", "position_ids", "prefix_length")),
    )
    assert absolute(jnp.asarray(ours), logits.detach()) <= HIDDEN
    sums = partial(gradient_sums, make_loss_function(case.model))
    gradients_of = jax.jit(partial(mean_gradients, sums))
    found = gradients_of(case.params, case.batch, jax.random.key(0))
    assert relative(found.loss, loss.detach()) <= golden_training.LOSS
    named = to_state(found.values, case.model.config.num_layers)
    expected = torch_glm.gradients_by_name(case.twin)
    assert named.keys() == expected.keys()
    for name, gradient in expected.items():
        difference = relative(named[name], gradient, golden_training.SMALLEST_GRADIENT)
        assert difference <= golden_training.GRADIENT, name


OPTIMIZER = OptimizerConfig(
    learning_rate=3e-3,
    decay_steps=6,
    warmup_fraction=0.3,
    final_fraction=0.1,
    weight_decay=0.1,
    clip_norm=0.7,
)


@pytest.mark.parametrize(
    ("seed", "accumulation", "clip_norm"),
    [
        (0, "global_mean", 0.7),
        (2, "clipped_means", 0.7),
        (0, "global_mean", 0.0),
        (2, "clipped_means", 0.0),
    ],
)
def test_our_steps_equal_the_twins(seed, accumulation, clip_norm):
    settings = dataclasses.replace(OPTIMIZER, clip_norm=clip_norm)
    case, optimizer = draw_case(seed), make_optimizer(settings)
    loss_sum = make_loss_function(case.model)
    if accumulation == "global_mean":
        sums = partial(gradient_sums, loss_sum, accumulation_steps=2)
        gradients_of = partial(mean_gradients, sums)
        parts = [case.batch]  # the same as the whole batch at once
    else:
        gradients_of = partial(clipped_means, partial(gradient_sums, loss_sum), 2, clip_norm)
        parts = [{name: values[i::2] for name, values in case.batch.items()} for i in range(2)]
    step = jax.jit(make_train_step(gradients_of, settings))
    numbers = step_settings(settings, seed=0)
    state, adamw = initial_state(case.params, optimizer), torch_glm.AdamW(case.twin, settings)
    micro_batches = [torch_glm.torch_batch(part) for part in parts]
    for number in range(8):
        state, metrics = step(state, case.batch, numbers)
        rate = torch_glm.learning_rate(settings, number)
        outcome = torch_glm.train_step(case.twin, adamw, micro_batches, rate)
        assert relative(metrics["loss"], outcome.loss) <= golden_training.LOSS
        assert relative(metrics["gradient_norm"], largest(outcome.norms)) <= golden_training.NORM
    found = to_state(state.params, case.model.config.num_layers)
    for name, array in torch_glm.parameters_by_name(case.twin).items():
        difference = golden_training.parameter_gap(name, found[name], array)
        assert difference <= golden_training.PARAMETER, name


@given(
    decay=st.sampled_from(sorted(DECAYS)),
    decay_steps=st.integers(2, 40),
    warmup_fraction=st.sampled_from([0.0, 0.05, 0.3]) | st.floats(0.0, 0.9),
    final_fraction=st.floats(0.0, 1.0),
    restart=st.tuples(st.integers(1, 30), st.integers(1, 30)) | st.just((0, 0)),
)
@settings(deadline=None, max_examples=30)
def test_our_learning_rates_equal_the_twins(
    decay, decay_steps, warmup_fraction, final_fraction, restart
):
    config = OptimizerConfig(
        learning_rate=1e-3,
        decay=decay,
        decay_steps=decay_steps,
        warmup_fraction=warmup_fraction,
        final_fraction=final_fraction,
        restart_step=restart[0],
        restart_decay_steps=restart[1],
    )
    steps = range(decay_steps + restart[0] + restart[1] + 5)
    expected = [torch_glm.learning_rate(config, step) for step in steps]
    found = learning_rates(config, 0, len(steps))
    assert relative(found, expected, smallest=1e-9) <= golden_training.LEARNING_RATE
