"""Evaluations of several processes: the outputs of one device, written once."""

from __future__ import annotations

import json

import pytest

from glm_jax.cli.main import main
from tests.distributed.conftest import start_processes
from tests.finetune.test_processes import end
from tests.seq2seq.test_evaluate import SMALL, write_pairs
from tests.serve.tiny_checkpoint import write_checkpoint

__all__ = ["start_processes"]  # a fixture


@pytest.mark.slow
def test_two_processes_write_the_outputs_of_one_device(start_processes, tmp_path):
    checkpoint = write_checkpoint(tmp_path / "checkpoint")
    data = write_pairs(tmp_path / "data")
    command = ["evaluate", str(checkpoint), "--task=customization", f"--data={data}", *SMALL]
    assert main([*command, f"--outputs={tmp_path / 'one.jsonl'}"]) == 0
    outputs = tmp_path / "two.jsonl"
    first, second = end(start_processes([*command, f"--outputs={outputs}"], 2))
    assert first[0] == second[0] == 0, first[2] + second[2]
    assert "rouge-1" in first[1] and second[1] == ""
    written = [
        [json.loads(line) for line in path.read_text().splitlines()]
        for path in (tmp_path / "one.jsonl", outputs)
    ]
    assert written[0][0] == written[1][0] and len(written[1]) == 5
    for expected, found in zip(written[0][1:], written[1][1:], strict=True):
        assert found["ids"] == expected["ids"] and found["id"] == expected["id"]
        assert found["score"] == pytest.approx(expected["score"], abs=1e-5)
