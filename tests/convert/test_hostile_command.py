"""Damaged and hostile checkpoints through the command: an exit code, one sentence, nothing left."""

from __future__ import annotations

from pathlib import Path

import pytest

from glm_jax.cli.main import main
from tests.convert.hostile_inputs import HostileInput, hostile_inputs

# Other random damage than that of test_hostile.py, and every second input for speed.
INPUTS = hostile_inputs(seed=1)[::2]


def test_there_are_enough():
    assert len(INPUTS) >= 200


# In `make test` a few of each kind: test_hostile.py reads all.
@pytest.mark.parametrize(
    "hostile",
    [
        pytest.param(
            one, id=one.name, marks=pytest.mark.slow if index % 3 or one.number >= 10 else ()
        )
        for index, one in enumerate(INPUTS)
    ],
)
def test_hostile_input(hostile: HostileInput, tmp_path: Path, capfd):
    folder, marker = tmp_path / "checkpoint", tmp_path / "marker"
    folder.mkdir()
    path = hostile.make(folder, marker)
    before = {*tmp_path.iterdir()}
    destination = tmp_path / "converted"
    code = main(["convert", str(path), str(destination), "--num_attention_heads=2"])
    output, errors = capfd.readouterr()
    assert not marker.exists()
    if code == 0:
        assert hostile.may_read, "was converted as if it were good"
        assert destination.is_dir()
        return
    assert code in (1, 2)
    assert not output
    assert errors.startswith("glm-jax: ") and errors.count("\n") == 1
    assert str(folder) in errors
    assert {*tmp_path.iterdir()} == before
