"""Learning rates against every schedule recorded from the original code."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from glm_jax.train.optimizer import OptimizerConfig, learning_rate_schedule
from tests.parity.rows import Row, largest, relative

TOLERANCE = 1e-9
# A linear decay that runs on crosses 0; nearer to it than this fraction of the peak, differences
# are taken of that.
NEAR_ZERO = 1e-6
# The original's linear decay isn't clamped, and what it calls exponential is constant.
ORIGINAL_DECAYS = {"linear": "linear_unclamped", "exponential": "constant"}


def our_decay(decay_style: str) -> str:
    """What we call the original's arithmetic of a kind of decay."""
    return ORIGINAL_DECAYS.get(decay_style, decay_style)


def schedule_config(recorded: Mapping[str, Any], decay: str) -> OptimizerConfig:
    """Our description of a schedule from the original's arguments.

    For finetuning the original counts the steps after accumulation.
    """
    steps = recorded.get("lr_decay_iters") or recorded["train_iters"]
    if recorded.get("finetune"):
        steps //= recorded.get("gradient_accumulation_steps", 1)
    return OptimizerConfig(
        learning_rate=recorded["lr"],
        decay=decay,
        decay_steps=steps,
        warmup_fraction=recorded["warmup"],
        final_fraction=recorded["decay_ratio"],
    )


def learning_rates(config: OptimizerConfig, first: int, stop: int) -> np.ndarray:
    """Learning rates of the steps from `first` to before `stop`, in float64."""
    schedule = learning_rate_schedule(config)
    with jax.enable_x64(True):
        # One step at a time: arrays of many lengths would be compiled for each.
        return np.array([schedule(step) for step in range(first, stop)])


def schedule_rows(file: Path, golden: str) -> list[Row]:
    """One row per kind of decay, as the original computes it, and for our clamped linear decay."""
    recorded = json.loads(file.read_text())
    differences: dict[str, list[float]] = {}
    for run in recorded["schedules"]:
        kind, rates = run["decay_style"], np.array(run["lr_at_step"])
        config = schedule_config(run, our_decay(kind))
        found = learning_rates(config, 0, len(rates))
        difference = relative(found, rates, smallest=NEAR_ZERO * run["lr"])
        differences.setdefault(f"{kind}, past the end too", []).append(difference)
        if kind == "linear":
            clamped = schedule_config(run, kind)
            to_end = rates[: clamped.decay_steps + 1]
            difference = relative(learning_rates(clamped, 0, len(to_end)), to_end)
            differences.setdefault("linear clamped, to the end", []).append(difference)
    rows = [
        Row(golden, f"learning rate, {schedule} (relative)", TOLERANCE, largest(found))
        for schedule, found in differences.items()
    ]
    if "switch_linear" in recorded:
        rows.append(_switch_row(recorded["switch_linear"], golden))
    return rows


def _switch_row(recorded: Mapping[str, Any], golden: str) -> Row:
    switch = recorded["steps_before_switch"]
    config = OptimizerConfig(
        learning_rate=recorded["lr"],
        decay=recorded.get("decay_style", "cosine"),
        decay_steps=recorded["train_iters"],
        warmup_fraction=recorded["warmup"],
        final_fraction=recorded["decay_ratio"],
        restart_step=switch,
        restart_decay_steps=recorded["train_iters"] - switch,
    )
    rates = np.array([recorded["lr_before"], *recorded["lr_after_each_step"]])
    found = learning_rates(config, switch, switch + len(rates))
    return Row(
        golden, "learning rate, switch to linear (relative)", TOLERANCE, relative(found, rates)
    )
