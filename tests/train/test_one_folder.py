"""One run at a time in a folder, which is that of its configuration."""

import io
import json
import os
import shutil
from pathlib import Path

import pytest
from rich.console import Console

from glm_jax.checkpoints.checkpoints import Checkpoints
from glm_jax.configure import read_configuration
from glm_jax.errors import RunError
from glm_jax.io.lock import LOCK_FILE, FolderLock
from glm_jax.io.paths import resolve_path
from glm_jax.train.pretrain import Outcome, pretrain


def run(gin_file: Path, *bindings: str) -> Outcome:
    config = read_configuration([gin_file], bindings)
    return pretrain(config, Console(file=io.StringIO()))


@pytest.fixture
def begun(begun_tiny_run, tmp_path) -> Path:
    """The folder of a run of one step."""
    return Path(shutil.copytree(begun_tiny_run, tmp_path / "run"))


def contents(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_a_second_run_in_one_folder_names_the_first(begun):
    before = contents(begun)
    first = rf"the run folder .*run is in use by process {os.getpid()} on \S+ since"
    with FolderLock(resolve_path(begun)), pytest.raises(RunError, match=first):
        run(begun / "config.gin", "train.num_steps=2")
    assert contents(begun) == before


def test_a_run_whose_folder_was_taken_over_deletes_nothing(begun, monkeypatch):
    def taken_over(_lock):
        raise RunError("taken over")

    monkeypatch.setattr(FolderLock, "check", taken_over)
    with pytest.raises(RunError, match="taken over"):
        run(begun / "config.gin", "train.num_steps=2", "checkpoint.keep=1")
    assert [path.name for path in (begun / "checkpoints").iterdir()] == ["1"]
    assert not (begun / LOCK_FILE).exists()


@pytest.mark.parametrize("how", [pytest.param("copied", marks=pytest.mark.slow), "moved"])
def test_a_run_continues_in_the_folder_of_its_configuration(begun, how, tmp_path, monkeypatch):
    other = tmp_path / "other"
    if how == "copied":
        shutil.copytree(begun, other)
    else:
        begun.rename(other)
    before = contents(begun)
    monkeypatch.chdir(tmp_path)
    outcome = run(Path("other/config.gin"), "train.num_steps=2")
    assert outcome == Outcome(steps_before=1, steps=2, finished=True)
    assert "train.run_folder = 'other'" in (other / "config.gin").read_text()
    assert json.loads((other / "config.json").read_text())["train"]["run_folder"] == "other"
    record = Checkpoints(other / "checkpoints").read_record(2)
    assert record["configuration"]["train"]["run_folder"] == "other"
    assert begun.exists() == (how == "copied") and contents(begun) == before
