"""`glm-jax convert` as a user types it, and what the other commands make of its result."""

from __future__ import annotations

import json
import shutil

import pytest

from glm_jax.checkpoints.checkpoints import Checkpoints
from tests.convert.tiny import HEADS, tiny_tensors, write_original


@pytest.fixture
def source(tmp_path):
    return write_original(tmp_path / "source", tiny_tensors(), 2)


def assert_refused(result, *parts: str) -> None:
    """Exit code 2 and one sentence on standard error that holds the parts."""
    assert result.returncode == 2 and result.stdout == "", result.stderr
    lines = result.stderr.splitlines()
    assert len(lines) == 1 and lines[0].startswith("glm-jax: "), result.stderr
    for part in parts:
        assert part in lines[0]


def test_there_and_back(run_command, run_here, source, tmp_path):
    ours, back = tmp_path / "ours", tmp_path / "back"
    there = run_command(["convert", source, ours, f"--num_attention_heads={HEADS}"])
    assert there.returncode == 0, there.stderr
    assert there.stderr == ""  # no progress bar where nobody watches
    for part in ("original", "native", "4, as given", "float16", "CRC-32"):
        assert part in there.stdout
    flags = ["--to", "original", "--model_parallel_size=2"]
    returned = run_here(["convert", ours, back, *flags])
    assert returned.returncode == 0, returned.stderr
    for file in (source / "5").iterdir():
        assert (back / "5" / file.name).read_bytes() == file.read_bytes()


@pytest.mark.parametrize(
    ("flags", "part"),
    [
        (["--to=tensorflow"], "invalid choice: 'tensorflow'"),
        (["--model_parallel_size=2"], "--model_parallel_size is for --to original"),
        (["--to=original", "--model_parallel_size=0"], "--model_parallel_size is 0"),
        (["--num_attention_heads=3"], "--num_attention_heads is 3"),
        (["--dtype=float64"], "invalid choice: 'float64'"),
        ([], "--num_attention_heads"),
    ],
)
def test_refuses_in_one_sentence(run_here, source, tmp_path, flags, part):
    assert_refused(run_here(["convert", source, tmp_path / "out", *flags]), part)
    assert not (tmp_path / "out").exists()


def test_a_run_folder_keeps_its_tokenizer(run_here, finished_tiny_run, tmp_path):
    run_folder = finished_tiny_run
    half = tmp_path / "half"
    converted = run_here(["convert", run_folder, half, "--dtype=bfloat16"])
    assert converted.returncode == 0, converted.stderr
    files = sorted(file.name for file in (run_folder / "tokenizer").iterdir())
    assert files
    for name in ("config.gin", *(f"tokenizer/{file}" for file in files)):
        assert (half / name).read_bytes() == (run_folder / name).read_bytes()
    with Checkpoints(half / "checkpoints") as checkpoints:
        assert checkpoints.latest_step() == 6
        model = checkpoints.read_record(6)["configuration"]["model"]
    with Checkpoints(run_folder / "checkpoints") as checkpoints:
        assert model == checkpoints.read_record(6)["configuration"]["model"]


@pytest.mark.slow
def test_what_went_through_the_original_form_fills_and_evaluates(
    run_command, finished_tiny_run, tiny_store, tmp_path
):
    run_folder = finished_tiny_run
    original, ours = tmp_path / "original", tmp_path / "ours"
    assert run_command(["convert", run_folder, original, "--to=original"]).returncode == 0
    assert run_command(["convert", original, ours, "--num_attention_heads=2"]).returncode == 0
    assert_refused(run_command(["fill", ours, "The [MASK]."]), str(ours), "tokenizer")
    shutil.copytree(run_folder / "tokenizer", ours / "tokenizer")
    text = "The function returns [MASK] of the list."
    expected, found = (
        run_command(["fill", folder, text, "--json"]) for folder in (run_folder, ours)
    )
    assert found.returncode == 0, found.stderr
    assert json.loads(found.stdout) == json.loads(expected.stdout)
    settings = [f"--gin.data.store={tiny_store}", "--num_batches=2", "--json"]
    settings += ["--gin.blanks.task_masks=True"]
    settings += [f"--gin.blanks.{mix}" for mix in ("token=0.5", "sentence=0.3", "document=0.2")]
    expected, found = (
        run_command(["evaluate", folder, *settings]) for folder in (run_folder, ours)
    )
    assert found.returncode == 0, found.stderr
    assert json.loads(found.stdout) == json.loads(expected.stdout)
