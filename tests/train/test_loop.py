"""The loop counts: when it logs, evaluates and saves, and what it tells of steps left out."""

import itertools
import time

import jax.numpy as jnp
import pytest

from glm_jax.errors import RunError
from glm_jax.train.loop import Hooks, Pace, train
from glm_jax.train.step import TrainState
from glm_jax.train.timer import Clock


def run(
    num_steps,
    *,
    bad_steps=(),
    full_steps=(),
    max_skipped_steps=0,
    stop_at=None,
    skipped=0,
    **every,
):
    """Trains nothing for some steps; returns all that the hooks were called with, in order."""
    calls = []

    def train_step(state, _batch):
        step = int(state.step) + 1
        bad = step in bad_steps
        new = TrainState(jnp.asarray(step), state.skipped + bad, {}, ())
        loss = float("nan") if bad else 1.0
        metrics = {
            "loss": loss,
            "gradient_norm": loss,
            "skipped_steps": new.skipped,
            "target_overflow": 3 if step in full_steps else 0,
        }
        return new, {name: jnp.asarray(value) for name, value in metrics.items()}

    hooks = Hooks(
        before_step=lambda step: calls.append(("before", step)),
        after_step=lambda step: calls.append(("after", step)),
        log=lambda step, metrics: calls.append(("log", step)),
        show=lambda line, logged: None,
        say=lambda line: calls.append(("say", line)),
        evaluate=lambda step, state: calls.append(("evaluate", step)),
        save=lambda step, state, must: calls.append(("must save" if must else "save", step)),
        stop_asked=lambda step: step == stop_at,
    )
    pace = Pace(
        num_steps=num_steps,
        log_every=every.get("log", 1000),
        evaluate_every=every.get("evaluate", 1000),
        save_every=every.get("save", 1000),
        tokens_per_step=1,
        max_skipped_steps=max_skipped_steps,
    )
    state = TrainState(jnp.asarray(0), jnp.asarray(skipped), {}, ())
    done = train(state, train_step, itertools.repeat({}), 0, pace, hooks)
    return done, calls


def of(calls, *kinds):
    return [call for call in calls if call[0] in kinds]


def test_things_happen_at_their_steps_and_at_the_end():
    done, calls = run(7, log=3, evaluate=5, save=4)
    assert done == 7
    assert of(calls, "log") == [("log", 3), ("log", 6), ("log", 7)]
    assert of(calls, "evaluate") == [("evaluate", 5), ("evaluate", 7)]
    assert of(calls, "save", "must save") == [("save", 4), ("must save", 7)]


def test_every_step_is_begun_and_comes_back_once():
    _, calls = run(5, save=2)
    assert of(calls, "before") == [("before", step) for step in range(1, 6)]
    assert of(calls, "after") == [("after", step) for step in range(1, 6)]
    # Metrics are read while the devices work on the next step.
    assert calls.index(("before", 4)) < calls.index(("after", 3))


def test_a_run_that_is_asked_to_stop_saves_first():
    done, calls = run(9, stop_at=4)
    assert done == 4
    assert calls[-2:] == [("log", 4), ("must save", 4)]


def test_targets_without_a_place_are_told_at_once():
    _, calls = run(5, full_steps={2, 3})
    assert [line for _, line in of(calls, "say")] == [
        f"step {step}: 3 targets found no place in the loss; raise train.target_fraction"
        for step in (2, 3)
    ]


def test_a_step_left_out_is_told_once():
    done, calls = run(6, bad_steps={2, 5}, max_skipped_steps=2)
    assert done == 6
    assert [line for _, line in of(calls, "say")] == [
        "step 2: loss nan with gradient norm nan; its update is left out (1 so far, of at most 2)",
        "step 5: loss nan with gradient norm nan; its update is left out (2 so far, of at most 2)",
    ]


def test_those_left_out_before_a_restart_count_but_are_not_told_again():
    _, calls = run(3, skipped=2, max_skipped_steps=2)
    assert of(calls, "say") == []
    with pytest.raises(RunError, match=r"3 update\(s\) were not finite, and .* is 2"):
        run(3, skipped=2, bad_steps={2}, max_skipped_steps=2)


def test_the_clock_leaves_out_pauses_and_tells_waiting():
    clock = Clock()
    assert clock.speed() is None

    def slow():
        while True:
            time.sleep(0.02)
            yield {}

    batches = slow()
    for _ in range(3):
        clock.next_of(batches)
        time.sleep(0.02)
        clock.tick()
    clock.pause()
    time.sleep(0.5)
    clock.tick()
    speed = clock.speed()
    assert speed is not None
    assert 0.04 <= speed.step_seconds < 0.4
    assert 0.2 < speed.data_wait < 0.8
    clock.forget()
    assert clock.speed() == speed  # until there is something newer
