"""The training loop: step, log, save, evaluate, until done or asked to stop."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import jax

from glm_jax.cluster.heartbeat import Heartbeat
from glm_jax.cluster.preemption import StopRequest
from glm_jax.cluster.run_lock import RunLock
from glm_jax.parallel.batches import Batch
from glm_jax.train.profile import Profiler
from glm_jax.train.reporter import RunReporter
from glm_jax.train.step import Metrics, TrainState
from glm_jax.train.timer import StepTimer

if TYPE_CHECKING:
    from glm_jax.checkpoints.checkpoints import Checkpoints


@dataclasses.dataclass(frozen=True)
class LoopConfig:
    """When things happen, in steps.

    Attributes:
      num_steps: the last step.
      log_every: steps between records of metrics.
      evaluate_every: steps between evaluations; the last step is always evaluated.
      save_every: steps between saves; the last step is always saved.
      save_evaluated: whether every step that is evaluated is saved too, even if an earlier save is
        still being written.
    """

    num_steps: int
    log_every: int
    evaluate_every: int
    save_every: int
    save_evaluated: bool = False


@dataclasses.dataclass(frozen=True)
class Run:
    """A run in progress: its step, and what surrounds it.

    Attributes:
      config: when things happen.
      train_step: (state, batch) -> (state, metrics), compiled; the given state is donated.
      batches: what the steps are made on, from the first one.
      evaluate: evaluates the state after a step and reports; whether the run shall end with it.
      checkpoints: where its state is saved.
      record: what is saved with the state of a step.
      reporter: writes its metrics and messages.
      heartbeat: writes how far this process is.
      profiler: traces the steps it was asked to.
      stop: receives requests to stop.
      lock: keeps other processes out of the run folder.
    """

    config: LoopConfig
    train_step: Callable[[TrainState, Batch], tuple[TrainState, Metrics]]
    batches: Iterator[Batch]
    evaluate: Callable[[int, TrainState], bool]
    checkpoints: Checkpoints
    record: Callable[[int], Mapping[str, Any]]
    reporter: RunReporter
    heartbeat: Heartbeat
    profiler: Profiler
    stop: StopRequest
    lock: RunLock


def train_loop(run: Run, state: TrainState, first_step: int) -> int:
    """Runs from `first_step` to `num_steps`, or until asked to stop or an evaluation ends it.

    While the devices work on a step the host prepares the next batch; metrics are read one step
    late so that neither waits for the other.

    Returns:
      The number of steps done.

    Raises:
      RunError: more updates than allowed were skipped because loss or gradients were not finite,
        or a checkpoint could not be saved.
    """
    config, timer = run.config, StepTimer()
    step, pending = first_step, None
    # Batches are placed and metrics fetched explicitly; any other transfer is a mistake.
    with jax.transfer_guard("disallow"):
        while step < config.num_steps:
            batch = timer.next_batch(run.batches)
            step += 1
            run.profiler.before_step(step)
            run.heartbeat.before_step(step)
            with jax.profiler.StepTraceAnnotation("train", step_num=step):
                state, metrics = run.train_step(state, batch)
            if pending is not None:
                finish_step(run, timer, step - 1, pending)
            pending = metrics

            stopping = run.stop.asked(step)
            last = stopping or step == config.num_steps
            evaluating = step % config.evaluate_every == 0 or step == config.num_steps
            must_save = last or (evaluating and config.save_evaluated)
            saving = step % config.save_every == 0 or must_save
            if saving or evaluating:
                finish_step(run, timer, step, pending, last=last)
                pending = None
                if saving:  # before evaluating, which takes long and may fail
                    save_state(run, step, state, wait_for_previous=must_save, wait=last)
                if evaluating and not stopping:
                    run.heartbeat.doing("evaluating")
                    stopping = run.evaluate(step, state)
                    if stopping and not last:
                        save_state(run, step, state, wait_for_previous=True, wait=True)
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


def save_state(
    run: Run, step: int, state: TrainState, *, wait_for_previous: bool, wait: bool
) -> None:
    """Starts saving, or skips it while the previous save is still being written.

    Args:
      run: what it belongs to.
      step: steps done.
      state: what to save.
      wait_for_previous: whether to wait for the previous save rather than to skip this one.
      wait: whether to wait until this one is complete.
    """
    run.lock.check()  # saving deletes older checkpoints
    run.heartbeat.doing("saving")
    with jax.transfer_guard("allow"):  # orbax copies the state to the host in its own way
        if not run.checkpoints.save(
            step, state, run.record(step), wait_for_previous=wait_for_previous
        ):
            run.reporter.save_skipped(step)
        if wait:
            run.checkpoints.wait()
    run.reporter.report_saves(run.checkpoints.finished_saves())
