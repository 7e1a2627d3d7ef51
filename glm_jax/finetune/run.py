"""A finetuning run from its configuration to its results, in the order it happens."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from itertools import islice
from typing import TypeVar

import jax
from etils import epath
from jaxtyping import PyTree
from rich.console import Console

from glm_jax.checkpoints.checkpoints import Checkpoints
from glm_jax.cluster.heartbeat import Heartbeat
from glm_jax.cluster.preemption import StopRequest
from glm_jax.cluster.run_lock import RunLock
from glm_jax.data.batches.inputs import BATCHES_AHEAD, data_threads
from glm_jax.data.batches.pipeline import Prefetched
from glm_jax.finetune.batches import training_batches
from glm_jax.finetune.config import FinetuneBaseConfig, FinetuneRunConfig
from glm_jax.finetune.history import DevEvaluation, History, read_history, write_pointers
from glm_jax.finetune.outcome import FinetuneOutcome
from glm_jax.finetune.prepare import PreparedFinetuning, prepare_finetuning
from glm_jax.finetune.results import RESULTS_FILE, predictions_of, read_results, write_results
from glm_jax.finetune.resume import check_same_run, run_record
from glm_jax.finetune.schedule import (
    batches_of,
    is_complete,
    is_evaluation_due,
    is_patience_over,
    loop_config,
)
from glm_jax.finetune.seeds import check_folder, finetune_seeds
from glm_jax.finetune.shared_contexts import share_contexts
from glm_jax.finetune.step_size import mean_step_size
from glm_jax.finetune.summary import describe_network, describe_training
from glm_jax.finetune.trainable import layer_size
from glm_jax.finetune.weights import check_base, initial_state_from
from glm_jax.io.paths import resolve_path
from glm_jax.parallel.batches import Batch, process_rows, to_devices
from glm_jax.train.loop import Run, train_loop
from glm_jax.train.metrics import ProgressLine
from glm_jax.train.profile import Profiler, ProfileSteps
from glm_jax.train.reporter import ReporterConfig, RunReporter, utilisation_of
from glm_jax.train.run_folder import write_configuration
from glm_jax.train.step import Metrics, TrainState, settings_on_devices

Config = TypeVar("Config", bound=FinetuneBaseConfig)
TrainStep = Callable[[TrainState, Batch], tuple[TrainState, Metrics]]
# Batches whose mean size is that of a step in the reports.
MEASURED_BATCHES = 16


def finetune(
    config: FinetuneRunConfig, console: Console, profile_steps: ProfileSteps | None = None
) -> FinetuneOutcome:
    """`finetune_task` of a task whose answers are chosen."""
    return finetune_task(config, prepare_finetuning, console, profile_steps)


def finetune_task(
    config: Config,
    prepare: Callable[[Config], PreparedFinetuning],
    console: Console,
    profile_steps: ProfileSteps | None = None,
) -> FinetuneOutcome:
    """Starts, or resumes, the finetuning that the configuration describes, of one or several seeds.

    Nothing is written before everything has been checked.

    Args:
      config: of the run.
      prepare: opens and checks what a run of this kind is made of.
      console: shows how far it is.
      profile_steps: those that are traced for the profiler.

    Raises:
      UsageError: something of the configuration does not fit the rest.
      RunError: loss or gradients were not finite, or a checkpoint could not be saved.
    """
    folder = resolve_path(config.finetune.run_folder, "finetune.run_folder")
    line = ProgressLine(console)
    with StopRequest() as stop:
        check_folder(folder, config.finetune.seeds)
        ready = prepare(config)
        with jax.set_mesh(ready.mesh), line:
            line.say(describe_network(config, ready))
            for note in () if config.finetune.random_weights else ready.notes:
                line.say(note)
            run = partial(finetune_prepared, stop=stop, line=line, profile_steps=profile_steps)
            if config.finetune.seeds:
                return finetune_seeds(config, ready, run, line.say)
            return run(config, ready)


def finetune_prepared(
    config: FinetuneBaseConfig,
    ready: PreparedFinetuning,
    *,
    stop: StopRequest,
    line: ProgressLine,
    profile_steps: ProfileSteps | None,
) -> FinetuneOutcome:
    """Trains with one seed, or resumes.

    After the last epoch the best checkpoint is evaluated again; `results.json` and
    `predictions.jsonl` are of it. A run that has them is left as it is.
    """
    folder = resolve_path(config.finetune.run_folder, "finetune.run_folder")
    process = jax.process_index()
    with ExitStack() as stack:
        enter = stack.enter_context
        lock = enter(RunLock(folder, line.say))
        history = History(ready.metric)
        checkpoints = enter(
            Checkpoints(folder / "checkpoints", config.checkpoint, best=history.best_step)
        )
        first_step = resume_history(config, ready, folder, checkpoints, history, line.say)
        ended = is_complete(config, ready, history, first_step)
        if first_step and ended and (results := read_results(folder, ready, first_step)):
            line.say(f"this run is done: all {first_step} steps of {config.finetune.run_folder}")
            return FinetuneOutcome(first_step, ready.num_steps, results)
        line.say(describe_training(config, ready, first_step))
        loaded = {} if config.finetune.random_weights else ready.params_of(config.finetune.seed)
        state = first_state(config, ready, checkpoints, first_step, loaded)
        if process == 0:
            (folder / RESULTS_FILE).unlink(missing_ok=True)  # of fewer steps
            write_configuration(folder, config, ready.tokenizer)
        reporter = enter(RunReporter(folder, first_step, 0, line, reporter_config(config, ready)))
        evaluate = partial(evaluate_dev, config, ready, folder, history, reporter)
        run = Run(
            config=loop_config(config, ready),
            train_step=step_of(config, ready),
            batches=Prefetched(batches(config, ready, first_step), BATCHES_AHEAD),
            evaluate=evaluate,
            checkpoints=checkpoints,
            record=lambda step: run_record(config, ready),
            reporter=reporter,
            heartbeat=enter(Heartbeat(folder, process, first_step)),
            profiler=enter(Profiler(folder / "profile" / f"process_{process}", profile_steps)),
            stop=stop,
            lock=lock,
        )
        if not ended and is_evaluation_due(config, ready, history, first_step):
            ended = evaluate(first_step, state)
        steps = first_step if ended else train_loop(run, state, first_step)
        complete = is_complete(config, ready, history, steps)
        if complete:
            checkpoints.delete_superseded()
        results = write_results(config, ready, folder, checkpoints, history) if complete else None
    return FinetuneOutcome(steps, ready.num_steps, results)


def resume_history(
    config: FinetuneBaseConfig,
    ready: PreparedFinetuning,
    folder: epath.Path,
    checkpoints: Checkpoints,
    history: History,
    say: Callable[[str], None],
) -> int:
    """The step of the newest intact checkpoint, 0 for none; evaluations up to it are read.

    The pointers are written again: a run may have been killed before it wrote them, or the
    checkpoint that they name may be damaged.

    Raises:
      UsageError: the checkpoint is of a run that this one can't resume.
      RunError: all checkpoints are damaged.
    """
    first_step = checkpoints.latest_intact_step(say) or 0
    if first_step:
        check_same_run(checkpoints.read_record(first_step), config, ready)
        history.evaluations += read_history(folder, history.metric, first_step).evaluations
        if jax.process_index() == 0:
            write_pointers(folder, history, first_step)
    return first_step


def step_of(config: FinetuneBaseConfig, ready: PreparedFinetuning) -> TrainStep:
    """The train step with the run's settings, which are put on the devices once."""
    program = ready.program
    settings = settings_on_devices(program.settings_of(config.finetune.seed), ready.mesh)
    return lambda state, batch: program.step(state, batch, settings, ready.frozen)


def first_state(
    config: FinetuneBaseConfig,
    ready: PreparedFinetuning,
    checkpoints: Checkpoints,
    first_step: int,
    loaded: PyTree,
) -> TrainState:
    """The state of the last checkpoint, or `loaded` weights with fresh ones for all others."""
    if first_step:
        check_base(checkpoints.read_record(first_step), ready.base)
        return checkpoints.restore(first_step, ready.program.abstract_state)
    return initial_state_from(ready.program, loaded, config.finetune.seed)


def batches(
    config: FinetuneBaseConfig, ready: PreparedFinetuning, first_step: int
) -> Iterator[Batch]:
    """Global batches from a step on; this process makes the rows that its devices hold."""
    size = config.finetune.batch_size
    rows = process_rows(ready.mesh, size)
    made = training_batches(batches_of(config, ready), first_step, data_threads())
    local = (
        {name: values[rows] for name, values in share_contexts(batch).items()} for batch in made
    )
    return to_devices(local, ready.mesh, size)


def evaluate_dev(
    config: FinetuneBaseConfig,
    ready: PreparedFinetuning,
    folder: epath.Path,
    history: History,
    reporter: RunReporter,
    step: int,
    state: TrainState,
) -> bool:
    """Evaluates the parameters after a step on the dev split; whether that ends the run."""
    if "dev" not in ready.splits:
        return False
    start = time.perf_counter()
    found = predictions_of(ready, "dev", state.params).metrics
    history.evaluations.append((step, found))
    better = history.best_step() == step
    reporter.report_evaluation(step, DevEvaluation(found, better), time.perf_counter() - start)
    if jax.process_index() == 0:
        write_pointers(folder, history, step)
    return is_patience_over(config, history)


def reporter_config(config: FinetuneBaseConfig, ready: PreparedFinetuning) -> ReporterConfig:
    """What the reports of the run need to know of it."""
    made = map(share_contexts, training_batches(batches_of(config, ready)))
    size = mean_step_size(islice(made, MEASURED_BATCHES))
    chips = ready.mesh.devices.ravel().tolist()
    return ReporterConfig(
        num_steps=ready.num_steps,
        tokens_per_step=round(size.positions),
        max_skipped_steps=0,
        utilisation=utilisation_of(
            ready.model, round(size.length), chips, size.logit_share, layer_size(ready.frozen)
        ),
    )
