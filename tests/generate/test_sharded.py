"""A network spread over devices fills and scores as on one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest


def test_a_network_over_eight_devices_gives_the_tokens_and_scores_of_one(run_program):
    found = json.loads(run_program(Path(__file__).with_name("sharded_fill.py")))
    alone, spread = found["alone"], found["spread"]
    assert spread["greedy"] == alone["greedy"] and spread["beams"] == alone["beams"]
    assert spread["scores"] == pytest.approx(alone["scores"], rel=1e-5)
    assert alone["cache_part"] == [16, 8, 4, 64, 8]
    assert spread["cache_part"] == [16, 2, 2, 64, 8]  # rows over four, heads over two
