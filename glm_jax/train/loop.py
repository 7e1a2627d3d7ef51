"""The training loop: step, log, save, evaluate, until done or asked to stop."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
from jax.sharding import Mesh

from glm_jax.checkpoints.checkpoints import Checkpoints
from glm_jax.cluster.heartbeat import Heartbeat
from glm_jax.cluster.preemption import StopRequest
from glm_jax.cluster.run_lock import RunLock
from glm_jax.data.batches.inputs import Inputs
from glm_jax.train.evaluate import evaluate
from glm_jax.train.profile import Profiler
from glm_jax.train.program import Program
from glm_jax.train.reporter import RunReporter
from glm_jax.train.step import Metrics, TrainState
from glm_jax.train.timer import StepTimer


@dataclasses.dataclass(frozen=True)
class LoopConfig:
    """When things happen, in steps.

    Attributes:
      num_steps: the last step.
      log_every: steps between records of metrics.
      evaluate_every: steps between evaluations; the last step is always evaluated.
      evaluation_batches: batches of an evaluation.
      save_every: steps between saves; the last step is always saved.
    """

    num_steps: int
    log_every: int
    evaluate_every: int
    evaluation_batches: int
    save_every: int


@dataclasses.dataclass(frozen=True)
class Run:
    """A run in progress: its program, and what surrounds it.

    Attributes:
      config: when things happen.
      program: its compiled functions.
      mesh: the devices they run on.
      inputs: its data.
      checkpoints: where its state is saved.
      record: what is saved with the state of a step.
      reporter: writes its metrics and messages.
      heartbeat: writes how far this process is.
      profiler: traces the steps it was asked to.
      stop: receives requests to stop.
      lock: keeps other processes out of the run folder.
    """

    config: LoopConfig
    program: Program
    mesh: Mesh
    inputs: Inputs
    checkpoints: Checkpoints
    record: Callable[[int], Mapping[str, Any]]
    reporter: RunReporter
    heartbeat: Heartbeat
    profiler: Profiler
    stop: StopRequest
    lock: RunLock


def train_loop(run: Run, state: TrainState, first_step: int) -> int:
    """Runs from `first_step` to `num_steps`, or until asked to stop.

    While the devices work on a step the host prepares the next batch; metrics are read one step
    late so that neither waits for the other.

    Returns:
      The number of steps done.

    Raises:
      RunError: more updates than allowed were skipped because loss or gradients were not finite,
        or a checkpoint could not be saved.
    """
    config, timer = run.config, StepTimer()
    batches = run.inputs.read("train", run.mesh)
    step, pending = first_step, None
    # Batches are placed and metrics fetched explicitly; any other transfer is a mistake.
    with jax.transfer_guard("disallow"):
        while step < config.num_steps:
            batch = timer.next_batch(batches)
            step += 1
            run.profiler.before_step(step)
            run.heartbeat.before_step(step)
            with jax.profiler.StepTraceAnnotation("train", step_num=step):
                state, metrics = run.program.train_step(state, batch)
            if pending is not None:
                finish_step(run, timer, step - 1, pending)
            pending = metrics

            stopping = run.stop.asked(step)
            last = stopping or step == config.num_steps
            evaluating = step % config.evaluate_every == 0 or step == config.num_steps
            saving = step % config.save_every == 0 or last
            if saving or evaluating:
                finish_step(run, timer, step, pending, last=last)
                pending = None
                if saving:  # before evaluating, which takes long and may fail
                    save_state(run, step, state, wait=last)
                if evaluating and not stopping:
                    evaluate_state(run, step, state)
                timer.pause()
            if stopping:
                break
    return step


def finish_step(
    run: Run, timer: StepTimer, step: int, metrics: Metrics, *, last: bool = False
) -> None:
    """Waits for a step's metrics and reports them."""
    on_host = {name: float(value) for name, value in jax.device_get(metrics).items()}
    timer.step_ended()
    run.profiler.after_step(step)
    run.heartbeat.after_step(step)
    logged = step % run.config.log_every == 0 or last
    run.reporter.report_step(step, on_host, timer.speed(), timer.seconds_per_step, logged=logged)
    if logged:
        run.reporter.report_saves(run.checkpoints.finished_saves())
        timer.reset_window()


def save_state(run: Run, step: int, state: TrainState, *, wait: bool) -> None:
    """Starts saving, or skips it while the previous save is still being written.

    Args:
      run: what it belongs to.
      step: steps done.
      state: what to save.
      wait: whether to wait for the previous save and for this one.
    """
    run.lock.check()  # saving deletes older checkpoints
    run.heartbeat.doing("saving")
    with jax.transfer_guard("allow"):  # orbax copies the state to the host in its own way
        if not run.checkpoints.save(step, state, run.record(step), wait_for_previous=wait):
            run.reporter.save_skipped(step)
        if wait:
            run.checkpoints.wait()
    run.reporter.report_saves(run.checkpoints.finished_saves())


def evaluate_state(run: Run, step: int, state: TrainState) -> None:
    """Evaluates the current parameters on held-out batches."""
    run.heartbeat.doing("evaluating")
    start = time.perf_counter()
    batches = run.inputs.read("validation", run.mesh, num_steps=run.config.evaluation_batches)
    evaluation = evaluate(run.program.evaluation_step, state.params, batches)
    run.reporter.report_evaluation(step, evaluation, time.perf_counter() - start)
