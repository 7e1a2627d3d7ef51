"""Longer position tables, by each of the named ways."""

from __future__ import annotations

import argparse

import numpy as np
import pytest

from glm_jax.cli import convert as command
from glm_jax.cli.main import main
from glm_jax.convert.positions import NEW_POSITIONS, extend_positions
from glm_jax.errors import UsageError
from tests.convert.tiny import HEADS, tiny_tensors, write_original

TABLE = np.arange(10, dtype=np.float16).reshape(5, 2)


def test_repeating_starts_again_at_the_first_row():
    longer = extend_positions(TABLE, 8, "repeat")
    np.testing.assert_array_equal(longer[:5], TABLE)
    np.testing.assert_array_equal(longer[5:], TABLE[:3])
    np.testing.assert_array_equal(extend_positions(TABLE, 12, "repeat")[5:10], TABLE)


def test_new_rows_are_random_by_default():
    longer = extend_positions(TABLE, 2005, name="a")
    np.testing.assert_array_equal(longer[:5], TABLE)
    added = longer[5:].astype(np.float64)
    assert added.std() == pytest.approx(0.02, rel=0.05) and abs(added.mean()) < 0.002
    np.testing.assert_array_equal(longer, extend_positions(TABLE, 2005, "random", name="a"))
    others = (
        extend_positions(TABLE, 2005, name="b"),
        extend_positions(TABLE, 2005, name="a", seed=1),
    )
    assert not any(np.array_equal(longer, other) for other in others)


@pytest.mark.parametrize("new_positions", NEW_POSITIONS)
def test_every_way_keeps_dtype_and_rows(new_positions):
    assert extend_positions(TABLE, 9, new_positions).dtype == TABLE.dtype
    np.testing.assert_array_equal(extend_positions(TABLE, 5, new_positions), TABLE)
    with pytest.raises(UsageError, match="can't be made shorter"):
        extend_positions(TABLE, 4, new_positions)


def test_an_unknown_way_is_refused():
    with pytest.raises(UsageError, match="expected random or repeat"):
        extend_positions(TABLE, 9, "interpolate")


def test_the_command_has_every_way_and_its_seed(tmp_path, capsys):
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    choices = {action.dest: action.choices for action in parser._actions}
    assert tuple(choices["new_positions"] or ()) == tuple(NEW_POSITIONS)
    write_original(tmp_path / "source", tiny_tensors())

    def convert(name: str, *flags: str) -> int:
        paths = [str(tmp_path / "source"), str(tmp_path / name)]
        return main(["convert", *paths, f"--num_attention_heads={HEADS}", *flags])

    assert convert("a", "--max_sequence_length=16", "--new_positions=repeat") == 0
    assert "positions    6 extended to 16: the new rows repeat the table" in capsys.readouterr().out
    assert convert("b", "--max_sequence_length=16", "--seed=4") == 0
    assert "new rows random (normal, 0.02), seed 4" in capsys.readouterr().out
    for flag in ("--new_positions=repeat", "--seed=0"):
        assert convert("c", flag) == 2
        name = flag.partition("=")[0]
        sentence = f"{name} is for --max_sequence_length, which is not given"
        assert capsys.readouterr().err == f"glm-jax: {sentence}\n"
    assert convert("c", "--max_sequence_length=16", "--seed=-1") == 2
    assert "--seed is -1; expected 0" in capsys.readouterr().err
    assert not (tmp_path / "c").exists()
