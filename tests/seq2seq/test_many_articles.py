"""Outputs of many articles: the same however they are sharded, and after kills."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from glm_jax.cli.main import main
from tests.distributed.conftest import start_processes
from tests.finetune.test_processes import end
from tests.seq2seq.long_articles import write_articles, write_long_checkpoint

__all__ = ["start_processes"]  # a fixture

ARTICLES, LENGTH = 1000, 600
NUM_KILLS = 5
MAX_WASTED = 0.15
MIN_LENGTHS = 20  # of outputs, out of 33
SCORE_TOLERANCE = 1e-5
POLL_SECONDS = 0.5


def command(checkpoint, data, outputs, *more, beams=5, batch=32, source=610, target=32):
    return [
        *("evaluate", str(checkpoint), "--task=customization", f"--data={data}"),
        f"--outputs={outputs}",
        f"--gin.seq2seq.source_length={source}",
        f"--gin.seq2seq.target_length={target}",
        f"--gin.generation.beams={beams}",
        f"--gin.generation.batch_size={batch}",
        *more,
    ]


def read_outputs(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()][1:]


def usage_of(path: Path) -> dict:
    return json.loads(path.with_suffix(".results.json").read_text())["usage"]


def assert_same_outputs(found: Path, expected: Path) -> None:
    pairs = list(zip(read_outputs(found), read_outputs(expected), strict=True))
    different = [e["id"] for f, e in pairs if (f["id"], f["ids"]) != (e["id"], e["ids"])]
    assert not different
    for output, other in pairs:
        assert output["score"] == pytest.approx(other["score"], abs=SCORE_TOLERANCE)


@pytest.mark.slow
def test_eight_devices_write_the_outputs_of_one(run_command, tmp_path):
    checkpoint = write_long_checkpoint(tmp_path / "checkpoint")
    data = write_articles(tmp_path / "data", 21, 60)  # the last one is read alone
    small = {"beams": 3, "batch": 16, "source": 64, "target": 8}
    assert main(command(checkpoint, data, tmp_path / "one.jsonl", **small)) == 0
    axes = ["--gin.mesh.data=2", "--gin.mesh.fsdp=2", "--gin.mesh.tensor=2"]
    outputs = tmp_path / "eight.jsonl"
    done = run_command(command(checkpoint, data, outputs, *axes, **small), devices=8)
    assert done.returncode == 0, done.stderr
    assert "of the time wasted on padding and idle rows" in done.stdout
    assert_same_outputs(outputs, tmp_path / "one.jsonl")
    used = usage_of(outputs)
    assert used["prompt_tokens"] == usage_of(tmp_path / "one.jsonl")["prompt_tokens"]
    # Four prompts are read at a time, each on devices of its own.
    assert used["padded_prompt_tokens"] == 6 * 4 * 64
    assert 0 < used["wasted_share"] < 1


@pytest.fixture(scope="module")
def articles(tmp_path_factory, start_command):
    """Checkpoint, data and the outputs of one device."""
    folder = tmp_path_factory.mktemp("articles")
    checkpoint = write_long_checkpoint(folder / "checkpoint")
    data = write_articles(folder / "data", ARTICLES, LENGTH)
    [ended] = end([start_command(command(checkpoint, data, folder / "one.jsonl"))])
    assert ended[0] == 0, ended[2]
    return checkpoint, data, folder / "one.jsonl"


@pytest.mark.slow
def test_one_device_wastes_little_on_padding_and_idle_rows(articles):
    used = usage_of(articles[2])
    print(f"one device: {used}")
    outputs = read_outputs(articles[2])
    assert len(outputs) == ARTICLES
    # Texts end at different steps, so that slots have to be filled again.
    assert len({len(ids) for output in outputs for ids in output["ids"]}) >= MIN_LENGTHS
    assert used["wasted_share"] <= MAX_WASTED


@pytest.mark.slow
def test_eight_devices_write_the_outputs_of_one_for_all_articles(articles, start_command, tmp_path):
    checkpoint, data, expected = articles
    outputs = tmp_path / "eight.jsonl"
    [ended] = end([start_command(command(checkpoint, data, outputs), 8)])
    assert ended[0] == 0, ended[2]
    print(f"eight devices: {usage_of(outputs)}")
    assert_same_outputs(outputs, expected)
    assert usage_of(outputs)["wasted_share"] <= MAX_WASTED


@pytest.mark.slow
def test_two_processes_write_the_outputs_of_one_for_all_articles(
    articles, start_processes, tmp_path
):
    checkpoint, data, expected = articles
    outputs = tmp_path / "two.jsonl"
    ended = end(start_processes(command(checkpoint, data, outputs), 2))
    assert [code for code, _, _ in ended] == [0, 0], ended
    print(f"two processes: {usage_of(outputs)}")
    assert_same_outputs(outputs, expected)
    assert usage_of(outputs)["wasted_share"] <= MAX_WASTED


@pytest.mark.slow
def test_five_kills_change_no_output(articles, start_command, tmp_path):
    checkpoint, data, expected = articles
    outputs = tmp_path / "killed.jsonl"
    for kill in range(1, NUM_KILLS + 1):
        process = start_command(command(checkpoint, data, outputs))
        while not enough_outputs(outputs, kill * ARTICLES // (NUM_KILLS + 2)):
            assert process.poll() is None, process.communicate()
            time.sleep(POLL_SECONDS)
        process.kill()
        process.communicate()
    [ended] = end([start_command(command(checkpoint, data, outputs))])
    assert ended[0] == 0, ended[2]
    assert_same_outputs(outputs, expected)


def enough_outputs(path: Path, count: int) -> bool:
    return path.exists() and path.read_bytes().count(b"\n") > count
