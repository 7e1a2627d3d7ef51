"""A train step gives the same numbers however its parts are laid over devices."""

from __future__ import annotations

import functools
import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.parallel import sharded_step

PROGRAM = Path(__file__).with_name("sharded_step.py")
NUM_SLOW_GROUPS = 2  # of layouts
RELATIVE = 1e-5  # float32 sums in another order

# All with dropout, whose bits no layout may change.
CASES: dict[str, dict] = {
    "data": {"mesh": {"data": 8}},
    "fsdp": {"mesh": {"data": 1, "fsdp": 8}},
    "fsdp over two axes": {"mesh": {"data": 1, "fsdp": 2, "fsdp_minor": 4}},
    "data, fsdp over two axes": {"mesh": {"data": 2, "fsdp": 2, "fsdp_minor": 2}},
    "tensor": {"mesh": {"data": 2, "tensor": 4}},
    "context": {"mesh": {"data": 2, "context": 4}},
    "fsdp, context, tensor": {"mesh": {"data": 1, "fsdp": 2, "context": 2, "tensor": 2}},
    "stored over context too": {
        "mesh": {"data": 1, "fsdp": 4, "context": 2},
        "layout": {"hidden_in": ["fsdp", "context"], "vocab": ["context", "fsdp"]},
    },
    "replicated": {
        "mesh": {"data": 1, "fsdp": 4, "tensor": 2},
        "layout": {
            "vocab": [],
            "position_out": [],
            "hidden_in": [],
            "heads_in": ["tensor"],
            "mlp_in": ["tensor"],
        },
    },
    "remat": {"mesh": {"data": 1, "fsdp": 4, "tensor": 2}, "model": {"remat": "full"}},
    "minimal remat": {"mesh": {"data": 1, "fsdp": 4, "tensor": 2}, "model": {"remat": "minimal"}},
    "gathered parameters kept": {
        "mesh": {"data": 1, "fsdp": 2, "fsdp_minor": 2, "tensor": 2},
        "model": {"remat": "minimal_gathered", "scan_layers": False},
    },
    "one layer after another": {
        "mesh": {"data": 1, "fsdp": 4, "tensor": 2},
        "model": {"remat": "minimal", "scan_layers": False},
    },
    "gathered targets": {
        "mesh": {"data": 2, "fsdp": 2},
        "devices": 4,
        "step": {"target_fraction": 0.5},
    },
    "vocabulary that nothing divides": {
        "mesh": {"data": 1, "fsdp": 4, "tensor": 2},
        "model": {"vocab_size": 131},
    },
    "loss in chunks": {
        "mesh": {"data": 1, "fsdp": 2, "tensor": 2},
        "devices": 4,
        "step": {"loss_chunks": 4},
    },
    "gathered targets, tensor": {
        "mesh": {"data": 1, "fsdp": 2, "tensor": 2},
        "devices": 4,
        "step": {"target_fraction": 0.5},
    },
    "one head at a time": {
        "mesh": {"data": 1, "fsdp": 2, "context": 2, "tensor": 2},
        "model": {"attention": "by_head"},
    },
    "offload": {"mesh": {"data": 1, "fsdp": 4, "tensor": 2}, "model": {"remat": "offload"}},
    "accumulated": {
        "mesh": {"data": 1, "fsdp": 2, "context": 2, "tensor": 2},
        "step": {"accumulation_steps": 4},
    },
    "clipped means": {
        "mesh": {"data": 1, "fsdp": 2, "context": 2, "tensor": 2},
        "step": {"accumulation_steps": 4, "accumulation": "clipped_means"},
    },
    # Against the loop over layers on one device.
    "muon, one layer after another": {
        "mesh": {"data": 1, "fsdp": 2, "context": 2, "tensor": 2},
        "model": {"scan_layers": False},
        "optimizer": {"name": "muon"},
    },
}
REFERENCES: dict[str, dict] = {
    "plain": {"devices": 1},
    "vocabulary that nothing divides": {"devices": 1, "model": {"vocab_size": 131}},
    "accumulated": {"devices": 1, "step": {"accumulation_steps": 4}},
    "clipped means": {
        "devices": 1,
        "step": {"accumulation_steps": 4, "accumulation": "clipped_means"},
    },
    "muon, one layer after another": {"devices": 1, "optimizer": {"name": "muon"}},
}
OTHERS: dict[str, dict] = {
    "too few places": {
        "devices": 1,
        "step": {"target_fraction": 0.5},
        "target_share": 1.0,
    },
}


# What the other cases show together; `make test-all` shows each by itself.
COVERED_BY_OTHERS = {
    *("data", "fsdp", "tensor", "context", "replicated", "minimal remat", "offload"),
    "one layer after another",
    *("loss in chunks", "gathered targets, tensor", "one head at a time"),
    *("data, fsdp over two axes", "remat", "clipped means"),
}


@pytest.fixture(scope="module")
def result_of(run_program) -> Callable[[str], dict]:
    """What the program gives for a case.

    The layouts are shared out over some processes, so that one that fails takes only its own along.
    What they are compared with is computed in this process.
    """
    alone = {f"reference: {name}": case for name, case in REFERENCES.items()} | OTHERS
    slow = [name for name in CASES if name in COVERED_BY_OTHERS]
    groups = [[name for name in CASES if name not in slow]]
    groups += [slow[start::NUM_SLOW_GROUPS] for start in range(NUM_SLOW_GROUPS)]

    @functools.cache
    def results(number: int) -> dict[str, dict] | Exception:
        cases = [CASES[name] for name in groups[number]]
        try:
            printed = run_program(PROGRAM, json.dumps(cases))
        except (AssertionError, subprocess.TimeoutExpired) as error:
            return error  # it is not run again for every test of the group
        return dict(zip(groups[number], json.loads(printed), strict=True))

    @functools.cache
    def reference(case: str) -> dict:
        return sharded_step.run(alone[case])

    def result(case: str) -> dict:
        if case in alone:
            return reference(case)
        number = next(number for number, names in enumerate(groups) if case in names)
        found = results(number)
        if isinstance(found, Exception):
            raise found
        return found[case]

    return result


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, marks=pytest.mark.slow if case in COVERED_BY_OTHERS else ())
        for case in CASES
    ],
)
def test_a_layout_gives_the_numbers_of_one_device(result_of, case):
    found = result_of(case)
    expected = result_of(f"reference: {case if case in REFERENCES else 'plain'}")
    for name in ("losses", "norms", "evaluation"):
        np.testing.assert_allclose(found[name], expected[name], rtol=RELATIVE, err_msg=name)
    assert found["overflow"] == 0
    assert found["losses"][-1] < found["losses"][0]


def test_gradients_of_shared_storage_are_scattered(result_of):
    assert "all-gather" in result_of("fsdp over two axes")["collectives"]
    assert "reduce-scatter" in result_of("fsdp over two axes")["collectives"]
    assert result_of("reference: plain")["collectives"] == []


def test_every_device_stores_its_part(result_of):
    parts = result_of("fsdp, context, tensor")["parts"]
    assert parts["layers/attention/query_key_value/kernel"] == [2, 16, 3, 16]
    assert parts["layers/attention/output/kernel"] == [2, 8, 32]
    assert parts["layers/mlp/up/bias"] == [2, 64]
    assert parts["word_embedding"] == [32, 32]
    assert parts["position_embedding"] == [17, 16]
    assert result_of("stored over context too")["parts"]["layers/mlp/up/kernel"] == [2, 4, 128]


def test_targets_without_a_place_are_counted(result_of):
    # Every one of 16 x 16 positions has a target in each of 4 steps, and half of them a place.
    assert result_of("too few places")["overflow"] == 4 * 128
