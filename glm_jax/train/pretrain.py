"""A pretraining run from its configuration to its last checkpoint, in the order it happens."""

from __future__ import annotations

import dataclasses
import time
from contextlib import ExitStack

import jax
from jax.sharding import Mesh
from rich.console import Console

from glm_jax.checkpoints.checkpoints import Checkpoints
from glm_jax.cluster.heartbeat import Heartbeat
from glm_jax.cluster.preemption import StopRequest
from glm_jax.data.batches.inputs import Inputs, open_inputs
from glm_jax.io.paths import resolve_path
from glm_jax.parallel.mesh import make_mesh
from glm_jax.train.config import RunConfig
from glm_jax.train.evaluate import evaluate
from glm_jax.train.loop import Hooks, Pace, train
from glm_jax.train.metrics import ProgressLine, draw_loss
from glm_jax.train.profile import Profiler, ProfileSteps
from glm_jax.train.program import Program, program_of
from glm_jax.train.reporter import RunReporter, utilisation_of
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
    """Runs, or goes on with, the pretraining that the configuration describes.

    A run folder without a checkpoint is begun; one with checkpoints goes on from the newest that is
    not damaged; one that has all its steps is left as it is.

    Args:
      config: the run.
      console: where people are told.
      profile_steps: steps to trace for the profiler.

    Raises:
      UsageError: store, mesh or an earlier checkpoint do not fit the configuration.
      RunError: loss or gradients were not finite too often, a checkpoint could not be saved, or
        all are damaged.
    """
    folder = resolve_path(config.train.run_folder, "train.run_folder")
    inputs = open_inputs(config.data, config.blanks, config.model.vocab_size)
    mesh = make_mesh(config.mesh)
    program = program_of(config, mesh)
    line = ProgressLine(console)
    with Checkpoints(folder / "checkpoints", config.checkpoint) as checkpoints:
        first_step = checkpoints.latest_intact_step(line.say) or 0
        if first_step:
            fingerprint = inputs.tokenizer.fingerprint
            record = checkpoints.read_record(first_step)
            check_same_run(record, config.model, config.optimizer.moments, fingerprint)
        steps = first_step
        if first_step < config.train.num_steps:
            steps = _run(
                config, inputs, mesh, program, checkpoints, first_step, line, profile_steps
            )
    if jax.process_index() == 0 and not (steps == first_step and (folder / "loss.png").exists()):
        draw_loss(folder / "metrics.jsonl", folder / "loss.png")
    return Outcome(first_step, steps, finished=steps >= config.train.num_steps)


def _run(
    config: RunConfig,
    inputs: Inputs,
    mesh: Mesh,
    program: Program,
    checkpoints: Checkpoints,
    first_step: int,
    line: ProgressLine,
    profile_steps: ProfileSteps | None,
) -> int:
    """Trains from `first_step` on and returns the number of steps done."""
    folder = resolve_path(config.train.run_folder, "train.run_folder")
    process = jax.process_index()
    with ExitStack() as stack:
        stack.enter_context(jax.set_mesh(mesh))
        stack.enter_context(line)
        stop = stack.enter_context(StopRequest())
        num_tokens = inputs.num_tokens("train")
        line.say(describe(config, mesh, program.abstract_state, num_tokens, first_step))
        state = first_state(config, program, mesh, checkpoints, first_step)
        if process == 0:
            write_configuration(folder, config, inputs.tokenizer)
        chips = mesh.devices.ravel().tolist()
        utilisation = utilisation_of(
            config.model, config.data.sequence_length, chips, config.train.target_fraction
        )
        run = RunHooks(
            teller=stack.enter_context(RunReporter(folder, first_step, line, utilisation)),
            heartbeat=stack.enter_context(Heartbeat(folder, process, first_step)),
            profiler=stack.enter_context(
                Profiler(folder / "profile" / f"process_{process}", profile_steps)
            ),
            checkpoints=checkpoints,
            program=program,
            inputs=inputs,
            mesh=mesh,
            config=config,
        )
        hooks = run.hooks(line, stop)
        batches = inputs.read("train", mesh, first_step=first_step)
        return train(state, program.train_step, batches, first_step, pace_of(config), hooks)


@dataclasses.dataclass(frozen=True)
class RunHooks:
    """What happens around the steps of a run."""

    teller: RunReporter
    heartbeat: Heartbeat
    profiler: Profiler
    checkpoints: Checkpoints
    program: Program
    inputs: Inputs
    mesh: Mesh
    config: RunConfig

    def hooks(self, line: ProgressLine, stop: StopRequest) -> Hooks:
        """All of it, as the loop calls it."""
        return Hooks(
            before_step=self.before_step,
            after_step=self.after_step,
            log=self.log,
            show=lambda text, logged: line.show(text, logged=logged),
            say=line.say,
            evaluate=self.evaluate,
            save=self.save,
            stop_asked=stop.asked,
        )

    def before_step(self, step: int) -> None:
        """A step is about to be given to the devices."""
        self.profiler.before_step(step)
        self.heartbeat.before_step(step)

    def after_step(self, step: int) -> None:
        """A step's metrics are back."""
        self.profiler.after_step(step)
        self.heartbeat.after_step(step)

    def log(self, step: int, metrics: dict[str, float]) -> None:
        """Tells of a step, and of the saves that are complete by now."""
        self.teller.train(step, metrics)
        self.teller.saves(self.checkpoints.finished_saves())

    def evaluate(self, step: int, state: TrainState) -> None:
        """Evaluates the current parameters on held-out batches and tells the result."""
        self.heartbeat.doing("evaluating")
        begin = time.perf_counter()
        num_batches = self.config.evaluation.num_batches
        held_out = self.inputs.read("validation", self.mesh, num_steps=num_batches)
        evaluation = evaluate(self.program.evaluation_step, state.params, held_out)
        self.teller.validation(step, evaluation, time.perf_counter() - begin)

    def save(self, step: int, state: TrainState, must: bool) -> None:
        """Saves; the last save of a run is waited for."""
        self.heartbeat.doing("saving")
        record = run_record(self.config, self.inputs.tokenizer)
        if not self.checkpoints.save(step, state, record, wait_for_previous=must):
            self.teller.left_out(step)
        if must:
            self.checkpoints.wait()
        self.teller.saves(self.checkpoints.finished_saves())


def first_state(
    config: RunConfig, program: Program, mesh: Mesh, checkpoints: Checkpoints, first_step: int
) -> TrainState:
    """What the run begins from: its own last checkpoint; without one, `train.initial_weights`;
    without these, random parameters.
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
