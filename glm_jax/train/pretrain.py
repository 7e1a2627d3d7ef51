"""A pretraining run from its configuration to its last checkpoint, in the order it happens."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh
from jaxtyping import PyTree
from rich.console import Console

from glm_jax.checkpoint import Checkpoints
from glm_jax.configure import RunConfig, gin_text, json_text
from glm_jax.errors import UsageError
from glm_jax.evaluate import evaluate
from glm_jax.flops import model_flops_utilisation
from glm_jax.loading import load
from glm_jax.metrics import MetricsWriter, ProgressLine, draw_loss
from glm_jax.model import GLMConfig
from glm_jax.parallel.mesh import check_batch_size, make_mesh
from glm_jax.tokenizer import Tokenizer
from glm_jax.train.inputs import Inputs, open_inputs
from glm_jax.train.loop import Hooks, Pace, train
from glm_jax.train.optimizer import parameter_count
from glm_jax.train.program import Program, make_program
from glm_jax.train.state import TrainState
from glm_jax.train.stop import StopRequest

# A checkpoint fits a model if these agree; the rest (dropout, dtype, remat) may change on the way.
SHAPE_FIELDS = (
    "vocab_size",
    "num_layers",
    "hidden_size",
    "num_attention_heads",
    "max_sequence_length",
    "block_position_encoding",
)


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
      steps_before: steps that were done before this start.
      steps: steps done now.
      finished: whether all configured steps are done.
    """

    steps_before: int
    steps: int
    finished: bool


def pretrain(config: RunConfig, console: Console) -> Outcome:
    """Runs, or goes on with, the pretraining that the configuration describes.

    A run folder without a checkpoint is begun; one with a checkpoint goes on from its newest; one
    that has all its steps is left as it is.

    Raises:
      UsageError: store, mesh or an earlier checkpoint do not fit the configuration.
      RunError: loss or gradients were not finite too often.
    """
    folder = Path(config.train.run_folder)
    inputs = open_inputs(config.data, config.blanks, config.model.vocab_size)
    mesh = make_mesh(config.mesh)
    check_batch_size(config.data.batch_size // config.train.accumulation_steps, mesh)
    with Checkpoints(folder / "checkpoints", config.checkpoint) as checkpoints:
        first_step = checkpoints.latest_step() or 0
        if first_step:
            fingerprint = inputs.tokenizer.fingerprint
            check_same_run(checkpoints.read_record(first_step), config.model, fingerprint)
        steps = first_step
        if first_step < config.train.num_steps:
            steps = _run(config, inputs, mesh, checkpoints, first_step, console)
    if jax.process_index() == 0 and not (steps == first_step and (folder / "loss.png").exists()):
        draw_loss(folder / "metrics.jsonl", folder / "loss.png")
    return Outcome(first_step, steps, finished=steps >= config.train.num_steps)


def _run(
    config: RunConfig,
    inputs: Inputs,
    mesh: Mesh,
    checkpoints: Checkpoints,
    first_step: int,
    console: Console,
) -> int:
    """Trains from `first_step` on and returns the number of steps done.

    A run begins from its own last checkpoint; without one, from `train.initial_weights`; without
    these, from random parameters.
    """
    folder = Path(config.train.run_folder)
    program = make_program(
        config.model,
        config.optimizer,
        mesh,
        seed=config.train.seed,
        accumulation_steps=config.train.accumulation_steps,
        accumulation=config.train.accumulation,
    )
    with jax.set_mesh(mesh), ProgressLine(console) as line, StopRequest() as stop:
        line.say(describe(config, mesh, program, inputs, first_step))
        if first_step:
            state = checkpoints.restore(first_step, program.abstract_state)
        else:
            state = program.initialize()
            if config.train.initial_weights:
                path = config.train.initial_weights
                state = dataclasses.replace(state, params=initial_weights(path, config.model, mesh))
        writer = None
        if jax.process_index() == 0:
            write_configuration(folder, config, inputs.tokenizer)
            writer = MetricsWriter(folder, first_step)
        record = run_record(config, inputs.tokenizer)
        hooks = Hooks(
            log=functools.partial(log_step, writer, config, mesh),
            show=lambda text, logged: line.show(text, logged=logged),
            evaluate=functools.partial(evaluate_step, writer, line, program, config, inputs, mesh),
            save=lambda step, state: checkpoints.save(step, state, record),
            stop_asked=stop.asked,
        )
        batches = inputs.read("train", mesh, first_step=first_step)
        steps = train(state, program.train_step, batches, first_step, pace_of(config), hooks)
        if writer:
            writer.close()
    return steps


def initial_weights(path: str, model: GLMConfig, mesh: Mesh) -> PyTree:
    """The parameters of another checkpoint, for a run to begin from.

    Raises:
      UsageError: no checkpoint there, or one of other dimensions.
    """
    other, params = load(path, num_attention_heads=model.num_attention_heads, mesh=mesh)
    for name in SHAPE_FIELDS:
        found = getattr(other.config, name, None)
        if found != getattr(model, name):
            raise UsageError(
                f"train.initial_weights {path} has {name} = {found}, but the configuration says "
                f"model.{name} = {getattr(model, name)}"
            )
    return params


def check_same_run(record: dict[str, Any], model: GLMConfig, fingerprint: str) -> None:
    """Makes sure that a checkpoint can be gone on with.

    Raises:
      UsageError: the model has other dimensions, or the store another tokenizer.
    """
    saved = GLMConfig(**record["configuration"]["model"])
    for name in SHAPE_FIELDS:
        if getattr(saved, name) != getattr(model, name):
            raise UsageError(
                f"the run's checkpoint of step {record['step']} has model.{name} = "
                f"{getattr(saved, name)}, but the configuration says {getattr(model, name)}"
            )
    if "tokenizer_fingerprint" not in record:
        raise UsageError(
            f"the checkpoint of step {record['step']} in the run's folder was converted, not "
            "trained here, and a run can't go on from it; give the run a folder of its own"
        )
    if record["tokenizer_fingerprint"] != fingerprint:
        raise UsageError(
            f"the run's checkpoint of step {record['step']} was trained with the tokenizer "
            f"{record['tokenizer_fingerprint'][:12]}, but the store was built with "
            f"{fingerprint[:12]}"
        )


def run_record(config: RunConfig, tokenizer: Tokenizer) -> dict[str, Any]:
    """What is recorded with every checkpoint."""
    return {
        "configuration": dataclasses.asdict(config),
        "tokenizer_fingerprint": tokenizer.fingerprint,
        "data_seed": config.data.seed,
    }


def write_configuration(folder: Path, config: RunConfig, tokenizer: Tokenizer) -> None:
    """Makes the run folder stand on its own: configuration as gin and JSON, and the tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.gin").write_text(gin_text(config))
    (folder / "config.json").write_text(json_text(config))
    tokenizer.save(folder / "tokenizer")


def log_step(
    writer: MetricsWriter | None,
    config: RunConfig,
    mesh: Mesh,
    step: int,
    metrics: dict[str, float],
) -> None:
    """Writes a step's metrics, with the share of the chips' peak where that is known."""
    if writer is None:
        return
    speed = metrics.get("tokens_per_second")
    if speed is not None:
        utilisation = model_flops_utilisation(
            config.model, config.data.sequence_length, speed, mesh.devices.ravel().tolist()
        )
        if utilisation is not None:
            metrics = metrics | {"model_flops_utilisation": utilisation}
    writer.write("train", step, metrics)


def evaluate_step(
    writer: MetricsWriter | None,
    line: ProgressLine,
    program: Program,
    config: RunConfig,
    inputs: Inputs,
    mesh: Mesh,
    step: int,
    state: TrainState,
) -> None:
    """Evaluates the current parameters on held-out batches and tells the result."""
    held_out = inputs.read("validation", mesh, num_steps=config.evaluation.num_batches)
    evaluation = evaluate(program.evaluation_step, state.params, held_out)
    if writer:
        writer.write("validation", step, evaluation.metrics())
    line.say(f"step {step}: validation {evaluation.describe()}")


def pace_of(config: RunConfig) -> Pace:
    """The loop's counts."""
    return Pace(
        num_steps=config.train.num_steps,
        log_every=config.train.log_every,
        evaluate_every=config.evaluation.every,
        save_every=config.checkpoint.every,
        tokens_per_step=config.data.batch_size * config.data.sequence_length,
        max_skipped_steps=config.train.max_skipped_steps,
    )


def describe(
    config: RunConfig, mesh: Mesh, program: Program, inputs: Inputs, first_step: int
) -> str:
    """One line: what is trained, on what, from where."""
    shape = ", ".join(f"{axis} {size}" for axis, size in mesh.shape.items())
    tokens = inputs.num_tokens("train")
    begin = f"going on at step {first_step}" if first_step else "from the start"
    return (
        f"GLM with {parameter_count(program.abstract_state.params):,} parameters on "
        f"{mesh.size} {mesh.devices.flat[0].device_kind} device(s) ({shape}); "
        f"{tokens:,} training tokens, {config.data.batch_size} x {config.data.sequence_length} a "
        f"step, {config.train.num_steps} steps, {begin}"
    )
