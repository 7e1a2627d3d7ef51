"""A pretraining run from its configuration to its last checkpoint, in the order it happens."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any

import jax
from etils import epath
from jax.sharding import Mesh
from rich.console import Console

from glm_jax import environment
from glm_jax.cluster.heartbeat import Heartbeat
from glm_jax.cluster.preemption import StopRequest
from glm_jax.cluster.run_lock import RunLock
from glm_jax.data.batches.position import continued, recorded_position
from glm_jax.io.paths import resolve_path
from glm_jax.parallel.batches import Batch
from glm_jax.train.config import RunConfig
from glm_jax.train.evaluate import evaluate
from glm_jax.train.loop import LoopConfig, Run, train_loop
from glm_jax.train.metrics import ProgressLine, draw_loss, read_metrics
from glm_jax.train.preflight import PreparedRun, prepare_run
from glm_jax.train.profile import Profiler, ProfileSteps
from glm_jax.train.reporter import ReporterConfig, RunReporter, utilisation_of
from glm_jax.train.resume import check_same_run, describe_changes, run_record
from glm_jax.train.run_folder import write_configuration
from glm_jax.train.step import Metrics, TrainState, settings_on_devices
from glm_jax.train.summary import describe, notes

if TYPE_CHECKING:
    from glm_jax.checkpoints.checkpoints import Checkpoints
    from glm_jax.data.batches.inputs import Inputs


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
    all its steps is left as it is. Nothing is written before everything has been checked.

    Args:
      config: the run.
      console: where messages go.
      profile_steps: steps to trace for the profiler.

    Raises:
      UsageError: something of the configuration, or an earlier checkpoint, does not fit the rest.
      RunError: the run folder is in use, updates or a save failed, or all checkpoints are damaged.
    """
    folder = resolve_path(config.train.run_folder, "train.run_folder")
    process, line = jax.process_index(), ProgressLine(console)
    with ExitStack() as stack:
        enter = stack.enter_context
        ready = prepare_run(config, folder, profile_steps)
        stop = enter(StopRequest())  # so that the lock is released on SIGTERM, too
        lock = enter(RunLock(folder, line.say))
        checkpoints = enter(open_checkpoints(folder, config))
        first_step = checkpoints.latest_intact_step(line.say) or 0
        checkpoints.delete_superseded()
        inputs = ready.inputs
        if first_step:
            inputs = resume_inputs(checkpoints.read_record(first_step), config, inputs, line.say)
        if is_finished(config, folder, first_step):
            return _outcome(config, first_step, first_step)
        enter(jax.set_mesh(ready.mesh))
        enter(line)
        for text in (describe(config, ready, first_step), *notes(config)):
            line.say(text)
        batches = inputs.read("train", ready.mesh)  # makes the first ones meanwhile
        state = restore_or_initialize(ready, checkpoints, first_step)
        if process == 0:
            write_configuration(folder, config, inputs.tokenizer)
        report = reporter_config(config, ready.mesh)
        reporter = enter(RunReporter(folder, first_step, int(state.skipped), line, report))
        validate = partial(evaluate_state, ready, inputs, config.evaluation.num_batches, reporter)
        if is_evaluation_due(config, folder, first_step):
            validate(first_step, state)
        run = Run(
            config=loop_config(config),
            train_step=step_of(ready),
            batches=batches,
            evaluate=validate,
            checkpoints=checkpoints,
            record=partial(record_at, config, inputs, first_step),
            reporter=reporter,
            heartbeat=enter(Heartbeat(folder, process, first_step)),
            profiler=enter(Profiler(folder / "profile" / f"process_{process}", profile_steps)),
            stop=stop,
            lock=lock,
        )
        environment.collect_garbage_again()
        return _outcome(config, first_step, train_loop(run, state, first_step))


def open_checkpoints(folder: epath.Path, config: RunConfig) -> Checkpoints:
    """The checkpoints of a run folder, a context."""
    # Which imports orbax: now, while programs are compiled.
    from glm_jax.checkpoints.checkpoints import Checkpoints

    return Checkpoints(folder / "checkpoints", config.checkpoint)


def is_finished(config: RunConfig, folder: epath.Path, step: int) -> bool:
    """Whether a run of which some steps are saved has nothing left to do."""
    return step >= config.train.num_steps and not is_evaluation_due(config, folder, step)


def is_evaluation_due(config: RunConfig, folder: epath.Path, step: int) -> bool:
    """Whether the run was stopped between a save and the evaluation that follows it."""
    if not step or (step % config.evaluation.every and step != config.train.num_steps):
        return False
    evaluated = (
        r["step"] for r in read_metrics(folder / "metrics.jsonl") if r["kind"] == "validation"
    )
    return step not in evaluated


def resume_inputs(
    record: Mapping[str, Any], config: RunConfig, inputs: Inputs, say: Callable[[str], None]
) -> Inputs:
    """The inputs at the position of a checkpoint; `say` reports what of them has changed.

    Raises:
      UsageError: the run can't resume from the checkpoint.
    """
    check_same_run(record, config.model, config.optimizer, inputs.tokenizer.fingerprint)
    if changes := describe_changes(record, config, inputs.position):
        say(changes)
    return inputs.at(continued(recorded_position(record), inputs.position))


def record_at(config: RunConfig, inputs: Inputs, first_step: int, step: int) -> dict[str, Any]:
    """What is recorded with the checkpoint of a step of a run that started after `first_step`."""
    position = inputs.position.advanced((step - first_step) * config.data.batch_size)
    return run_record(config, inputs.tokenizer, position)


def restore_or_initialize(
    ready: PreparedRun, checkpoints: Checkpoints, first_step: int
) -> TrainState:
    """The first state of this start, from the first of these that there is:

    1. the run's own last checkpoint,
    2. the weights of `train.initial_weights`,
    3. random parameters.
    """
    abstract = ready.program.abstract_state
    if first_step:
        return checkpoints.restore(first_step, abstract)
    # Compiled only here where all checkpoints turned out to be damaged.
    initialize = ready.initialize.result() if ready.initialize else ready.program.initialize
    state = initialize()
    if ready.initial_weights is not None:
        # They come in the default layout; the run's may be another.
        shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract.params)
        params = jax.device_put(ready.initial_weights, shardings)
        state = dataclasses.replace(state, params=params)
    return state


def step_of(ready: PreparedRun) -> Callable[[TrainState, Batch], tuple[TrainState, Metrics]]:
    """The compiled train step with the run's settings, which are put on the devices once."""
    settings = settings_on_devices(ready.program.settings, ready.mesh)
    # Compiled at its first call, where damaged checkpoints have sent the run back.
    train_step = ready.train_step.result() if ready.train_step else ready.program.train_step
    return lambda state, batch: train_step(state, batch, settings)


def evaluate_state(
    ready: PreparedRun,
    inputs: Inputs,
    num_batches: int,
    reporter: RunReporter,
    step: int,
    state: TrainState,
) -> bool:
    """Evaluates the parameters after a step on held-out batches; the run continues after it."""
    start = time.perf_counter()
    batches = inputs.read("validation", ready.mesh, num_steps=num_batches)
    evaluation = evaluate(ready.program.evaluation_step, state.params, batches)
    reporter.report_evaluation(step, evaluation, time.perf_counter() - start)
    return False


def loop_config(config: RunConfig) -> LoopConfig:
    """When things happen in a run."""
    return LoopConfig(
        num_steps=config.train.num_steps,
        log_every=config.train.log_every,
        evaluate_every=config.evaluation.every,
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
