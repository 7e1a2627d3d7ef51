"""The loop counts: when it logs, evaluates and saves, and what it reports of skipped updates."""

from __future__ import annotations

import itertools
import json
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from glm_jax.errors import RunError
from glm_jax.train.evaluate import OBJECTIVES
from glm_jax.train.loop import LoopConfig, Run, train_loop
from glm_jax.train.reporter import ReporterConfig, RunReporter
from glm_jax.train.step import TrainState
from glm_jax.train.timer import StepTimer


class Calls:
    """Stands in for everything around the loop, and records what it is called with, in order."""

    def __init__(self, stop_at: int | None, slow_saves: bool):
        self.list: list[tuple[str, Any]] = []
        self._stop_at = stop_at
        self._slow_saves = slow_saves

    def before_step(self, step):
        self.list.append(("before", step))

    def after_step(self, step):
        self.list.append(("after", step))

    def doing(self, what):
        self.list.append(("doing", what))

    def say(self, line):
        self.list.append(("say", line))

    def show(self, line, *, logged):
        if logged:
            self.list.append(("log", int(line.split()[1].partition("/")[0])))

    def asked(self, step):
        return step == self._stop_at

    def save(self, step, state, record, *, wait_for_previous):
        assert record == {"a": step} and int(state.step) == step
        self.list.append(("save and wait" if wait_for_previous else "save", step))
        return wait_for_previous or not self._slow_saves

    def wait(self):
        self.list.append(("wait", None))

    def finished_saves(self):
        return []

    def read(self, split, _mesh, **steps):
        if split == "validation":
            self.list.append(("evaluate", steps["num_steps"]))
        return itertools.repeat({}, steps.get("num_steps", 1_000_000))


def run(
    folder: Path,
    num_steps: int,
    *,
    bad_steps=(),
    full_steps=(),
    max_skipped_steps=0,
    stop_at=None,
    skipped=0,
    slow_saves=False,
    train_step=None,
    **every,
):
    """Trains nothing for some steps; returns the steps done and all calls, in order."""
    calls: Any = Calls(stop_at, slow_saves)

    def metrics_only(state, _batch):
        step = int(jax.device_get(state.step)) + 1
        bad = step in bad_steps
        total = int(jax.device_get(state.skipped)) + bad
        new = TrainState(jax.device_put(step), jax.device_put(total), {}, ())
        metrics = {
            "loss": float("nan") if bad else 1.0,
            "gradient_norm": float("nan") if bad else 1.0,
            "skipped_steps": total,
            "target_overflow": 3 if step in full_steps else 0,
        }
        return new, {name: jax.device_put(value) for name, value in metrics.items()}

    per_objective = jax.device_put(np.ones(len(OBJECTIVES), np.float32))
    sums = dict.fromkeys(("loss", "correct", "targets", "target_counts"), per_objective)
    program: Any = SimpleNamespace(
        train_step=train_step or metrics_only, evaluation_step=lambda params, batch: sums
    )
    reports = ReporterConfig(num_steps, 1, max_skipped_steps, lambda speed: None)
    state = TrainState(jnp.asarray(0), jnp.asarray(skipped), {}, ())
    with RunReporter(folder, 0, skipped, calls, reports) as reporter:
        config = LoopConfig(
            num_steps=num_steps,
            log_every=every.get("log", 1000),
            evaluate_every=every.get("evaluate", 1000),
            evaluation_batches=2,
            save_every=every.get("save", 1000),
        )
        mesh: Any = None
        around = {
            "heartbeat": calls,
            "lock": SimpleNamespace(check=lambda: None),
            "profiler": SimpleNamespace(
                **{name: lambda step: None for name in ("before_step", "after_step")}
            ),
        }

        def record(step: int) -> dict[str, int]:
            return {"a": step}

        done = train_loop(
            Run(config, program, mesh, calls, calls, record, reporter, stop=calls, **around),
            state,
            0,
        )
    return done, calls.list


def of(calls, *kinds):
    return [call for call in calls if call[0] in kinds]


def test_things_happen_at_their_steps_and_at_the_end(tmp_path):
    done, calls = run(tmp_path, 7, log=3, evaluate=5, save=4)
    assert done == 7
    assert of(calls, "log") == [("log", 3), ("log", 6), ("log", 7)]
    assert of(calls, "save", "save and wait") == [("save", 4), ("save and wait", 7)]
    # The last step is saved before it is evaluated.
    assert [kind for kind, _ in of(calls, "save", "save and wait", "wait", "evaluate")] == [
        "save",
        "evaluate",
        "save and wait",
        "wait",
        "evaluate",
    ]
    records = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [(record["step"], record["kind"]) for record in records] == [
        (3, "train"),
        (5, "validation"),
        (6, "train"),
        (7, "train"),
        (7, "validation"),
    ]


def test_every_step_starts_and_ends_once(tmp_path):
    _, calls = run(tmp_path, 5, save=2)
    assert of(calls, "before") == [("before", step) for step in range(1, 6)]
    assert of(calls, "after") == [("after", step) for step in range(1, 6)]
    # Metrics are read while the devices work on the next step.
    assert calls.index(("before", 4)) < calls.index(("after", 3))


def test_a_run_that_is_asked_to_stop_saves_first(tmp_path):
    done, calls = run(tmp_path, 9, stop_at=4)
    assert done == 4
    assert of(calls, "log", "save and wait", "wait", "evaluate") == [
        ("log", 4),
        ("save and wait", 4),
        ("wait", None),
    ]


def test_a_skipped_save_is_reported(tmp_path):
    _, calls = run(tmp_path, 3, save=2, slow_saves=True)
    ((_, line),) = of(calls, "say")[:1]
    assert line.startswith("step 2: checkpoint skipped, since the previous one is still")


def test_an_implicit_transfer_in_a_step_is_refused(tmp_path):
    with pytest.raises(Exception, match="Disallowed host-to-device transfer"):
        run(tmp_path, 1, train_step=lambda state, batch: (state, {"loss": state.step + np.ones(3)}))


def test_targets_beyond_the_loss_capacity_are_reported_at_once(tmp_path):
    _, calls = run(tmp_path, 5, full_steps={2, 3})
    lines = [line for _, line in of(calls, "say") if "validation" not in line]
    assert lines == [
        f"step {step}: 3 targets exceed the loss capacity; raise train.target_fraction"
        for step in (2, 3)
    ]


def test_a_skipped_update_is_reported_once(tmp_path):
    done, calls = run(tmp_path, 6, bad_steps={2, 5}, max_skipped_steps=2)
    assert done == 6
    assert [line for _, line in of(calls, "say") if "validation" not in line] == [
        "step 2: loss nan with gradient norm nan; update skipped (1 so far, 2 allowed)",
        "step 5: loss nan with gradient norm nan; update skipped (2 so far, 2 allowed)",
    ]


def test_those_skipped_before_a_restart_count_but_are_not_reported_again(tmp_path):
    _, calls = run(tmp_path, 3, skipped=2, max_skipped_steps=2)
    assert [line for _, line in of(calls, "say") if "validation" not in line] == []
    with pytest.raises(RunError, match=r"3 update\(s\) were not finite, and .* is 2"):
        run(tmp_path, 3, skipped=2, bad_steps={2}, max_skipped_steps=2)


def test_the_timer_leaves_out_pauses_and_measures_waiting():
    timer = StepTimer()
    assert timer.speed() is None

    def slow():
        while True:
            time.sleep(0.02)
            yield {}

    batches = slow()
    for _ in range(3):
        timer.next_batch(batches)
        time.sleep(0.02)
        timer.step_ended()
    timer.pause()
    time.sleep(0.5)
    timer.step_ended()
    speed = timer.speed()
    assert speed is not None
    assert 0.04 <= speed.step_seconds < 0.4
    assert 0.2 < speed.data_wait < 0.8
    timer.reset_window()
    assert timer.speed() == speed  # until there is something newer
