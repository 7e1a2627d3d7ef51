"""Eight virtual devices compute what one computes, each holding its part of the parameters."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("sharded_forward.py")
QUERY_KEY_VALUE = "layers/attention/query_key_value/kernel"
OUTPUT = "layers/attention/output/kernel"
UP, UP_BIAS, DOWN = "layers/mlp/up/kernel", "layers/mlp/up/bias", "layers/mlp/down/kernel"

# Per mesh (data, fsdp, tensor, vocabulary): the shape of one device's part of some parameters.
PARTS: dict[str, dict[str, list[int]]] = {
    "8,1,1,128": {QUERY_KEY_VALUE: [2, 32, 3, 32], "word_embedding": [128, 32]},
    "1,8,1,128": {
        QUERY_KEY_VALUE: [2, 4, 3, 32],
        OUTPUT: [2, 4, 32],
        UP: [2, 4, 128],
        DOWN: [2, 16, 32],
        "word_embedding": [16, 32],
    },
    "1,4,2,128": {
        QUERY_KEY_VALUE: [2, 8, 3, 16],
        OUTPUT: [2, 4, 32],
        UP: [2, 8, 64],
        UP_BIAS: [2, 64],
        DOWN: [2, 16, 32],
        "word_embedding": [16, 32],
    },
    # 99 rows divide by neither 4 nor 2: they stay whole, and everything still works.
    "1,4,2,99": {QUERY_KEY_VALUE: [2, 8, 3, 16], "word_embedding": [99, 32]},
}


@pytest.fixture(scope="module")
def results(run_program) -> dict[str, dict]:
    return json.loads(run_program(PROGRAM, *PARTS))


@pytest.mark.parametrize("case", PARTS)
def test_eight_devices_compute_what_one_computes(results, case):
    result = results[case]
    assert result["initial_difference"] == 0.0
    assert result["loss_difference"] < 1e-5
    assert result["gradient_difference"] < 1e-5


@pytest.mark.parametrize("case", PARTS)
def test_every_device_holds_its_part(results, case):
    result = results[case]
    assert {name: result["parts"][name] for name in PARTS[case]} == PARTS[case]
    data, fsdp, _, _ = (int(size) for size in case.split(","))
    assert result["batch_part"] == [8 // (data * fsdp), 16]
