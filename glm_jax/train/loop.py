"""The training loop: step, log, evaluate, save, until done or asked to stop."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

import jax

from glm_jax.errors import RunError
from glm_jax.parallel.batches import Batch
from glm_jax.train.metrics import duration
from glm_jax.train.step import Metrics, TrainState
from glm_jax.train.timer import Clock


@dataclasses.dataclass(frozen=True)
class Hooks:
    """What the loop calls; the loop itself only counts.

    Attributes:
      before_step: (step) before it is given to the devices.
      after_step: (step) when its metrics have come back from the devices.
      log: (step, metrics) every `log_every` steps, at the end and before stopping early.
      show: (line, logged) after every step.
      say: (line) what people must not miss.
      evaluate: (step, state) every `evaluate_every` steps and at the end.
      save: (step, state, must) every `save_every` steps; at the end and before stopping early it
        must be done.
      stop_asked: (step) -> whether to stop after this step.
    """

    before_step: Callable[[int], None]
    after_step: Callable[[int], None]
    log: Callable[[int, dict[str, float]], None]
    show: Callable[[str, bool], None]
    say: Callable[[str], None]
    evaluate: Callable[[int, TrainState], None]
    save: Callable[[int, TrainState, bool], None]
    stop_asked: Callable[[int], bool]


@dataclasses.dataclass(frozen=True)
class Pace:
    """When things happen, in steps, and what a step is worth."""

    num_steps: int
    log_every: int
    evaluate_every: int
    save_every: int
    tokens_per_step: int
    max_skipped_steps: int


def train(
    state: TrainState,
    train_step: Callable[[TrainState, Batch], tuple[TrainState, Metrics]],
    batches: Iterator[Batch],
    first_step: int,
    pace: Pace,
    hooks: Hooks,
) -> int:
    """Runs from `first_step` to `pace.num_steps`, or until asked to stop.

    While the devices work on a step the host prepares the next one's batch; metrics are read one
    step late so that neither waits for the other.

    Returns:
      The number of steps done.

    Raises:
      RunError: more updates than allowed were left out because loss or gradients were not finite.
    """
    clock = Clock()
    step, running = first_step, None
    skipped = int(jax.device_get(state.skipped))

    def finish(done: int, running: Metrics, *, last: bool) -> None:
        nonlocal skipped
        metrics = {name: float(value) for name, value in jax.device_get(running).items()}
        clock.tick()
        hooks.after_step(done)
        if metrics["skipped_steps"] > skipped:
            skipped = int(metrics["skipped_steps"])
            _tell_skipped(done, metrics, pace.max_skipped_steps, hooks.say)
        if metrics["target_overflow"]:
            hooks.say(
                f"step {done}: {metrics['target_overflow']:.0f} targets found no place in the "
                "loss; raise train.target_fraction"
            )
        speed = clock.speed()
        if speed:
            metrics["step_seconds"] = speed.step_seconds
            metrics["tokens_per_second"] = pace.tokens_per_step / speed.step_seconds
            metrics["data_wait"] = speed.data_wait
        logged = done % pace.log_every == 0 or last
        hooks.show(progress_line(done, pace.num_steps, metrics, clock.seconds_per_step), logged)
        if logged:
            hooks.log(done, metrics)
            clock.forget()

    while step < pace.num_steps:
        batch = clock.next_of(batches)
        step += 1
        hooks.before_step(step)
        with jax.profiler.StepTraceAnnotation("train", step_num=step):
            state, metrics = train_step(state, batch)
        if running is not None:
            finish(step - 1, running, last=False)
        running = metrics
        stopping = hooks.stop_asked(step)
        last = stopping or step == pace.num_steps
        evaluating = step % pace.evaluate_every == 0 or step == pace.num_steps
        saving = step % pace.save_every == 0 or last
        if evaluating or saving:
            finish(step, running, last=last)
            running = None
            # The save first: evaluating takes long, and may fail.
            if saving:
                hooks.save(step, state, last)
            if evaluating and not stopping:
                hooks.evaluate(step, state)
            clock.pause()
        if stopping:
            break
    return step


def progress_line(
    step: int, num_steps: int, metrics: dict[str, float], seconds_per_step: float | None
) -> str:
    """step, loss, tokens/s, time left and time lost to waiting for data, for people."""
    line = f"step {step:>{len(str(num_steps))}}/{num_steps}  loss {metrics['loss']:.3f}"
    if seconds_per_step is not None:
        line += f"  {metrics['tokens_per_second']:,.0f} tokens/s"
        line += f"  {duration((num_steps - step) * seconds_per_step)} left"
        line += f"  {metrics['data_wait']:.1%} waiting for data"
    return line


def _tell_skipped(
    step: int, metrics: dict[str, float], max_skipped_steps: int, say: Callable[[str], None]
) -> None:
    """Tells of an update that was left out.

    Raises:
      RunError: it is one more than allowed.
    """
    skipped = int(metrics["skipped_steps"])
    found = f"step {step}: loss {metrics['loss']} with gradient norm {metrics['gradient_norm']}"
    if skipped > max_skipped_steps:
        raise RunError(
            f"{found}; {skipped} update(s) were not finite, and train.max_skipped_steps is "
            f"{max_skipped_steps}"
        )
    say(f"{found}; its update is left out ({skipped} so far, of at most {max_skipped_steps})")
