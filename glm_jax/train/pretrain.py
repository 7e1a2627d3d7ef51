"""A pretraining run from its configuration to its last checkpoint, in the order it happens."""

from __future__ import annotations

import dataclasses
from contextlib import ExitStack

import jax
from jax.sharding import Mesh
from rich.console import Console

from glm_jax.checkpoints.checkpoints import Checkpoints
from glm_jax.cluster.heartbeat import Heartbeat
from glm_jax.cluster.preemption import StopRequest
from glm_jax.data.batches.inputs import open_inputs
from glm_jax.io.paths import resolve_path
from glm_jax.parallel.mesh import make_mesh
from glm_jax.train.config import RunConfig
from glm_jax.train.loop import LoopConfig, Run, train_loop
from glm_jax.train.metrics import ProgressLine, draw_loss
from glm_jax.train.profile import Profiler, ProfileSteps
from glm_jax.train.program import Program, program_of
from glm_jax.train.reporter import ReporterConfig, RunReporter, utilisation_of
from glm_jax.train.resume import check_same_run, initial_weights, run_record
from glm_jax.train.run_folder import write_configuration
from glm_jax.train.step import TrainState
from glm_jax.train.summary import describe


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


def pretrain(
    config: RunConfig, console: Console, profile_steps: ProfileSteps | None = None
) -> Outcome:
    """Starts, or resumes, the pretraining that the configuration describes.

    A run folder with checkpoints is resumed from the newest one that is not damaged; one that has
    all its steps is left as it is.

    Args:
      config: the run.
      console: where messages go.
      profile_steps: steps to trace for the profiler.

    Raises:
      UsageError: store, mesh or an earlier checkpoint do not fit the configuration.
      RunError: loss or gradients were not finite too often, a checkpoint could not be saved, or
        all are damaged.
    """
    folder = resolve_path(config.train.run_folder, "train.run_folder")
    process = jax.process_index()
    inputs = open_inputs(config.data, config.blanks, config.model.vocab_size)
    mesh = make_mesh(config.mesh)
    program = program_of(config, mesh)
    line = ProgressLine(console)
    with ExitStack() as stack:
        enter = stack.enter_context
        checkpoints = enter(Checkpoints(folder / "checkpoints", config.checkpoint))
        first_step = checkpoints.latest_intact_step(line.say) or 0
        if first_step:
            saved = checkpoints.read_record(first_step)
            check_same_run(saved, config.model, config.optimizer, inputs.tokenizer.fingerprint)
        if first_step >= config.train.num_steps:
            return _outcome(config, first_step, first_step)
        enter(jax.set_mesh(mesh))
        enter(line)
        stop = enter(StopRequest())
        num_tokens = inputs.num_tokens("train")
        line.say(describe(config, mesh, program.abstract_state, num_tokens, first_step))
        state = restore_or_initialize(config, program, mesh, checkpoints, first_step)
        skipped = int(jax.device_get(state.skipped))
        if process == 0:
            write_configuration(folder, config, inputs.tokenizer)
        run = Run(
            config=loop_config(config),
            program=program,
            mesh=mesh,
            inputs=inputs,
            checkpoints=checkpoints,
            record=run_record(config, inputs.tokenizer),
            reporter=enter(
                RunReporter(folder, first_step, skipped, line, reporter_config(config, mesh))
            ),
            heartbeat=enter(Heartbeat(folder, process, first_step)),
            profiler=enter(Profiler(folder / "profile" / f"process_{process}", profile_steps)),
            stop=stop,
        )
        steps = train_loop(run, state, first_step)
    return _outcome(config, first_step, steps)


def restore_or_initialize(
    config: RunConfig, program: Program, mesh: Mesh, checkpoints: Checkpoints, first_step: int
) -> TrainState:
    """The first state of this start, from the first of these that there is:

    1. the run's own last checkpoint,
    2. the weights of `train.initial_weights`,
    3. random parameters.
    """
    if first_step:
        return checkpoints.restore(first_step, program.abstract_state)
    state = program.initialize()
    if path := config.train.initial_weights:
        # They come in the default layout; the run's may be another.
        shardings = jax.tree.map(lambda leaf: leaf.sharding, program.abstract_state.params)
        params = jax.device_put(initial_weights(path, config.model, mesh), shardings)
        state = dataclasses.replace(state, params=params)
    return state


def loop_config(config: RunConfig) -> LoopConfig:
    """When things happen in a run."""
    return LoopConfig(
        num_steps=config.train.num_steps,
        log_every=config.train.log_every,
        evaluate_every=config.evaluation.every,
        evaluation_batches=config.evaluation.num_batches,
        save_every=config.checkpoint.every,
    )


def reporter_config(config: RunConfig, mesh: Mesh) -> ReporterConfig:
    """What the reports of a run need to know of it."""
    length = config.data.sequence_length
    chips = mesh.devices.ravel().tolist()
    return ReporterConfig(
        num_steps=config.train.num_steps,
        tokens_per_step=config.data.batch_size * length,
        max_skipped_steps=config.train.max_skipped_steps,
        utilisation=utilisation_of(config.model, length, chips, config.train.target_fraction),
    )


def _outcome(config: RunConfig, first_step: int, steps: int) -> Outcome:
    """Draws the loss plot, unless nothing new is to be seen in it."""
    folder = resolve_path(config.train.run_folder, "train.run_folder")
    if jax.process_index() == 0 and not (steps == first_step and (folder / "loss.png").exists()):
        draw_loss(folder / "metrics.jsonl", folder / "loss.png")
    return Outcome(first_step, steps, finished=steps >= config.train.num_steps)
