"""The sweeps in configs/sweeps/ are valid, and ask what they say."""

from __future__ import annotations

from pathlib import Path

import pytest

from glm_jax.configure import read_sweep
from glm_jax.sweeps.plan import Plan

SWEEPS = Path(__file__).resolve().parents[2] / "configs" / "sweeps"
# How many trials there are, and what they are judged by.
EXPECTED = {
    "paper_ablations_pretrain": (4, "validation/loss"),
    "paper_ablations": (25, "validation/accuracy"),
    "objectives": (6, "validation/loss_token"),
    "glue_seeds": (45, "validation/accuracy"),
    "embedded_ablations_pretrain": (4, "validation/loss"),
    "embedded_ablations": (15, "validation/accuracy"),
}


def plan_of(name: str) -> Plan:
    path = SWEEPS / f"{name}.gin"
    return Plan(*read_sweep([path]), str(path), None)


def test_every_file_is_here():
    assert {path.stem for path in SWEEPS.glob("*.gin")} == set(EXPECTED)


@pytest.mark.parametrize("name", EXPECTED)
def test_sweeps_are_valid(name):
    plan = plan_of(name)
    assert (plan.num_trials, plan.metric) == EXPECTED[name]
    assert plan.folder == f"sweeps/{name}"


@pytest.mark.parametrize("name", ["paper_ablations", "embedded_ablations"])
def test_finetuning_starts_from_the_trials_of_the_pretraining(name):
    pretrained = {trial.name for trial in plan_of(f"{name}_pretrain").trials}
    used = {Path(trial.config.finetune.initial_weights).name for trial in plan_of(name).trials}
    assert used == pretrained


def test_the_objectives_are_compared_at_the_same_cost():
    flops = {trial.cost.flops for trial in plan_of("objectives").trials if trial.cost}
    assert len(flops) == 1
