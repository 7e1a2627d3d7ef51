"""A finetuning run from its configuration to its results, in the order it happens."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from functools import partial
from itertools import islice
from typing import Any

import jax
from etils import epath
from jaxtyping import PyTree
from rich.console import Console

from glm_jax.checkpoints.checkpoints import Checkpoints
from glm_jax.cluster.heartbeat import Heartbeat
from glm_jax.cluster.preemption import StopRequest
from glm_jax.cluster.run_lock import RunLock
from glm_jax.data.batches.inputs import BATCHES_AHEAD
from glm_jax.data.batches.pipeline import Prefetched
from glm_jax.errors import UsageError
from glm_jax.finetune.batches import training_batches
from glm_jax.finetune.config import FinetuneRunConfig
from glm_jax.finetune.history import DevEvaluation, History, read_history, write_pointers
from glm_jax.finetune.prepare import PreparedFinetuning, prepare_finetuning
from glm_jax.finetune.results import predictions_of, write_results
from glm_jax.finetune.shared_contexts import share_contexts
from glm_jax.finetune.step_size import mean_step_size
from glm_jax.io.paths import resolve_path
from glm_jax.parallel.batches import Batch, process_rows, to_devices
from glm_jax.train.loop import LoopConfig, Run, train_loop
from glm_jax.train.metrics import ProgressLine
from glm_jax.train.profile import Profiler, ProfileSteps
from glm_jax.train.reporter import ReporterConfig, RunReporter, utilisation_of
from glm_jax.train.run_folder import write_configuration
from glm_jax.train.step import TrainState

# Batches whose mean size is that of a step in the reports.
MEASURED_BATCHES = 16
# What a run can't resume with other values of.
FIXED_SETTINGS: Mapping[str, tuple[str, ...]] = {
    "task": ("name", "pattern", "cloze", "multi_token", "sequence_length", "patterns", "words"),
    "prompt": ("num_tokens", "prefix", "encoder"),
    "finetune": ("batch_size", "seed", "max_train_examples", "random_weights"),
}


@dataclasses.dataclass(frozen=True)
class FinetuneOutcome:
    """How a run ended.

    Attributes:
      steps: done.
      num_steps: of all epochs.
      results: what `results.json` has, None before the end.
    """

    steps: int
    num_steps: int
    results: Mapping[str, Any] | None


def finetune(
    config: FinetuneRunConfig, console: Console, profile_steps: ProfileSteps | None = None
) -> FinetuneOutcome:
    """Starts, or resumes, the finetuning that the configuration describes.

    After the last epoch the best checkpoint is evaluated again; `results.json` and
    `predictions.jsonl` are of it.

    Raises:
      UsageError: something of the configuration does not fit the rest.
      RunError: loss or gradients were not finite, or a checkpoint could not be saved.
    """
    folder = resolve_path(config.finetune.run_folder, "finetune.run_folder")
    line = ProgressLine(console)
    with ExitStack() as stack:
        enter = stack.enter_context
        stop = enter(StopRequest())
        ready = prepare_finetuning(config)
        lock = enter(RunLock(folder, line.say))
        metric = ready.task.metrics[0]
        history = History(metric)
        checkpoints = enter(
            Checkpoints(folder / "checkpoints", config.checkpoint, best=lambda: history.best_step())
        )
        first_step = checkpoints.latest_intact_step(line.say) or 0
        if first_step:
            check_same_run(checkpoints.read_record(first_step), config)
        history.evaluations += read_history(folder, metric, first_step).evaluations
        enter(jax.set_mesh(ready.mesh))
        enter(line)
        loaded = {} if config.finetune.random_weights else ready.params
        state = first_state(ready, checkpoints, first_step, loaded)
        line.say(describe(config, ready, first_step))
        if jax.process_index() == 0:
            write_configuration(folder, config, ready.tokenizer)
        reporter = enter(RunReporter(folder, first_step, 0, line, reporter_config(config, ready)))
        evaluate = partial(evaluate_dev, config, ready, folder, history, reporter)
        run = Run(
            config=loop_config(config, ready),
            train_step=ready.program.train_step,
            batches=Prefetched(batches(config, ready, first_step), BATCHES_AHEAD),
            evaluate=evaluate,
            checkpoints=checkpoints,
            record=lambda step: record(config, ready),
            reporter=reporter,
            heartbeat=enter(Heartbeat(folder, jax.process_index(), first_step)),
            profiler=enter(Profiler(folder / "profile", profile_steps)),
            stop=stop,
            lock=lock,
        )
        ended = first_step and due_evaluation(ready, config, history, first_step)
        ended = bool(ended) and evaluate(first_step, state)
        steps = first_step if ended else train_loop(run, state, first_step)
        complete = steps >= ready.num_steps or is_patience_over(config, history)
        results = write_results(config, ready, folder, checkpoints, history) if complete else None
    return FinetuneOutcome(steps, ready.num_steps, results)


def check_same_run(saved: Mapping[str, Any], config: FinetuneRunConfig) -> None:
    """Makes sure that a run resumes with what decides its batches and its parameters.

    Raises:
      UsageError: something of it has changed.
    """
    now = dataclasses.asdict(config)
    for section, names in FIXED_SETTINGS.items():
        for name in names:
            old, new = saved["configuration"][section].get(name), now[section][name]
            if old != json.loads(json.dumps(new)):
                raise UsageError(
                    f"{section}.{name} is {new!r}, but the run in {config.finetune.run_folder} has "
                    f"{old!r}; give the run a folder of its own"
                )


def due_evaluation(
    ready: PreparedFinetuning, config: FinetuneRunConfig, history: History, step: int
) -> bool:
    """Whether the run was stopped between a save and the evaluation that follows it."""
    every = config.finetune.evaluate_every_epochs * ready.steps_per_epoch
    due = "dev" in ready.splits and (step % every == 0 or step == ready.num_steps)
    return due and all(evaluated != step for evaluated, _ in history.evaluations)


def first_state(
    ready: PreparedFinetuning, checkpoints: Checkpoints, first_step: int, loaded: PyTree
) -> TrainState:
    """The state of the last checkpoint, or `loaded` weights with fresh ones for all others."""
    abstract = ready.program.abstract_state
    if first_step:
        return checkpoints.restore(first_step, abstract)
    state = ready.program.initialize()
    shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract.params)
    params = dict(state.params)
    for name, leaves in loaded.items():
        params[name] = jax.device_put(leaves, shardings[name])
    return dataclasses.replace(state, params=params)


def batches(
    config: FinetuneRunConfig, ready: PreparedFinetuning, first_step: int
) -> Iterator[Batch]:
    """Global batches from a step on; this process makes the rows that its devices hold."""
    size = config.finetune.batch_size
    rows = process_rows(ready.mesh, size)
    made = training_batches(ready.splits["train"].encoded, size, config.finetune.seed, first_step)
    local = (
        {name: values[rows] for name, values in share_contexts(batch).items()} for batch in made
    )
    return to_devices(local, ready.mesh, size)


def evaluate_dev(
    config: FinetuneRunConfig,
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
    found = predictions_of(config, ready, "dev", state.params).metrics
    history.evaluations.append((step, found))
    better = history.best_step() == step
    reporter.report_evaluation(step, DevEvaluation(found, better), time.perf_counter() - start)
    if jax.process_index() == 0:
        write_pointers(folder, history, step)
    return is_patience_over(config, history)


def is_patience_over(config: FinetuneRunConfig, history: History) -> bool:
    """Whether too many evaluations were not better than an earlier one."""
    return 0 < config.finetune.patience <= history.since_best()


def record(config: FinetuneRunConfig, ready: PreparedFinetuning) -> dict[str, Any]:
    """What is saved with a checkpoint, which `glm_jax.load` opens as that of any run."""
    configuration = dataclasses.asdict(config) | {"model": dataclasses.asdict(ready.model)}
    return {
        "configuration": configuration,
        "tokenizer_fingerprint": ready.tokenizer.fingerprint,
    }


def loop_config(config: FinetuneRunConfig, ready: PreparedFinetuning) -> LoopConfig:
    """When things happen: every evaluation has a checkpoint of its own."""
    every = config.finetune.evaluate_every_epochs * ready.steps_per_epoch
    return LoopConfig(
        num_steps=ready.num_steps,
        log_every=config.finetune.log_every,
        evaluate_every=every,
        save_every=every,
    )


def reporter_config(config: FinetuneRunConfig, ready: PreparedFinetuning) -> ReporterConfig:
    """What the reports of the run need to know of it."""
    examples, settings = ready.splits["train"].encoded, config.finetune
    made = map(share_contexts, training_batches(examples, settings.batch_size, settings.seed))
    size = mean_step_size(islice(made, MEASURED_BATCHES))
    chips = ready.mesh.devices.ravel().tolist()
    return ReporterConfig(
        num_steps=ready.num_steps,
        tokens_per_step=round(size.positions),
        max_skipped_steps=0,
        utilisation=utilisation_of(ready.model, round(size.length), chips, size.logit_share),
    )


def describe(config: FinetuneRunConfig, ready: PreparedFinetuning, first_step: int) -> str:
    """The line that a run starts with."""
    counts = ", ".join(f"{len(s.examples):,} {name}" for name, s in ready.splits.items())
    padding = ready.splits["train"].encoded.padding_share(
        config.finetune.batch_size, config.finetune.seed
    )
    start = f"resuming from step {first_step}" if first_step else "from the start"
    return (
        f"task {ready.task.name}: {counts} examples, {config.finetune.epochs} epochs of "
        f"{ready.steps_per_epoch} steps, {padding:.0%} padding, {start}"
    )
