"""The report fails on one changed value, on NaN and on what is missing, in every folder.

Each folder of recordings is copied in a reduced form. In every quantity that a row compares one
value is changed, and every row must fail; unchanged, the copy must pass.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest

from tests.parity import report
from tests.parity.golden_forward import model_parallel_rows, model_rows
from tests.parity.golden_generation import is_padded
from tests.parity.golden_ranks import rank_rows
from tests.parity.golden_training import folder_rows
from tests.parity.rows import Row, absolute, guarded, largest, relative
from tests.parity.spoiled import (
    CHANGES,
    NAN,
    Change,
    assert_all_fail,
    assert_all_pass,
    copied,
    edit_arrays,
    edit_json,
    last_is_nan,
    last_is_off,
)


@pytest.mark.parametrize("model", ["block2d_scale1", "block2d_scale8", "pos1d", "relative_xl"])
def test_forward_passes(shared, tmp_path, model):
    goldens = copied(shared, tmp_path, f"a_forward/{model}")
    folder = goldens / "a_forward" / model
    recording = folder / "io.npz"
    kept = ("seg0",) if model == "relative_xl" else ("sep_vector", "sep_full")

    def reduce(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {name: array for name, array in arrays.items() if name.split("/")[0] in kept}

    edit_arrays(recording, reduce)
    assert_all_pass(model_rows(folder, report.load))
    reduced = recording.read_bytes()
    for change in (last_is_off, last_is_nan):
        recording.write_bytes(reduced)
        edit_arrays(recording, partial(spoil_forward_pass, change))
        assert_all_fail(model_rows(folder, report.load))


def spoil_forward_pass(change: Change, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    for name, array in arrays.items():
        if name.split("/")[1].startswith(("logits", "hidden", "mem_")):
            change(array)
    return arrays


@CHANGES
def test_model_parallel_ranks(shared, tmp_path, change):
    goldens = copied(shared, tmp_path, "b_model_parallel")
    folder = goldens / "b_model_parallel"

    def spoil(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        name = "logits" if "logits" in arrays else sorted(arrays)[-1]
        change(arrays[name])
        return arrays

    edit_arrays(folder / "io.npz", spoil)
    assert_all_fail(model_parallel_rows(folder, report.load))
    edit_arrays(folder / "merged_expected.npz", spoil)
    edit_json(folder / "config.json", lambda config: config | {"iteration": 1201})
    assert_all_fail(rank_rows(goldens))


@pytest.mark.parametrize("bit", [0, 7])
def test_a_changed_bit_of_a_rank(shared, tmp_path, bit):
    goldens = copied(shared, tmp_path, "b_model_parallel")
    path = goldens / "b_model_parallel/mp2/1200/mp_rank_01_model_states.pt"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1 << bit
    path.write_bytes(data)
    rows = list(rank_rows(goldens))
    failed = {row.golden for row in rows if not row.passed}
    assert failed == {"b_model_parallel/mp2"}


def spoil_run(info: dict[str, Any], value: float) -> None:
    """Changes one recorded number of every kind in the information on a training run."""
    last = info["steps"][-1]

    def changed(number: float) -> float:
        return value if np.isnan(value) else number * 1.01

    info["grad_global_norm_before_clip"] = changed(info["grad_global_norm_before_clip"])
    info["weight_decay_group"] = info["weight_decay_group"][:-1]
    for key in ("loss", "lr_used"):
        last[key] = changed(last[key])
    last["grad_norms_at_each_clip"][-1] = changed(last["grad_norms_at_each_clip"][-1])
    name = sorted(name for name in last["param_checksums"] if "query_key_value" not in name)[-1]
    last["param_checksums"][name]["sq_sum"] = changed(last["param_checksums"][name]["sq_sum"])


@pytest.mark.parametrize(
    "run", ["adamw_cosine", pytest.param("adamw_linear_accum", marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("change", [last_is_off, last_is_nan])
def test_training(shared, tmp_path, run, change):
    goldens = copied(shared, tmp_path, f"c_training/{run}")
    folder = goldens / "c_training" / run

    def spoil(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        for name in ("logits", "token_losses", "loss", "loss_empty_mask", "d_logits"):
            change(arrays[f"grad/{name}"])
        change(arrays["grad/loss_label_smoothing_0.1"])
        last = sorted(name for name in arrays if name.startswith("grad/param/"))[-1]
        change(arrays[last])
        del arrays["grad/param/transformer.final_layernorm.bias"]
        for kind in ("final/", "final_exp_avg_checksum/", "final_exp_avg_sq_checksum/"):
            last = sorted(n for n in arrays if n.startswith(kind) and "query_key" not in n)[-1]
            change(arrays[last])
        return arrays

    edit_arrays(folder / "io.npz", spoil)
    edit_json(
        folder / "info.json", lambda info: spoil_run(info, NAN if change is last_is_nan else 1)
    )
    assert_all_fail(folder_rows(folder, run))


@pytest.mark.parametrize("value", [1.01, NAN])
def test_learning_rates(shared, tmp_path, value):
    goldens = copied(shared, tmp_path, "c_training/lr_schedule")

    def spoil(recorded: dict[str, Any]) -> None:
        for run in recorded["schedules"]:
            middle = len(run["lr_at_step"]) // 4
            run["lr_at_step"][middle] *= value
        recorded["switch_linear"]["lr_after_each_step"][-2] *= value

    edit_json(goldens / "c_training/lr_schedule/lr.json", spoil)
    assert_all_fail(folder_rows(goldens / "c_training/lr_schedule", "lr"))


def test_small_gradients_are_compared_too(shared, tmp_path):
    """One tenth of one of the entries below 1e-5, which most of the logits' gradient is."""
    goldens = copied(shared, tmp_path, "c_training/adamw_cosine")
    folder = goldens / "c_training/adamw_cosine"

    def spoil(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        gradient = arrays["grad/d_logits"]
        small = np.flatnonzero((np.abs(gradient) > 0) & (np.abs(gradient) < 1e-5))
        gradient.flat[small[len(small) // 2]] *= 1.1
        return arrays

    edit_arrays(folder / "io.npz", spoil)
    failed = [row.quantity for row in folder_rows(folder, "run") if not row.passed]
    assert failed == ["gradient by the logits (relative, or 1e-9 absolute)"]


def test_a_text_may_lack_padding_and_nothing_else():
    assert is_padded([1, 2], [1, 2], pad=0)
    assert is_padded([1, 2], [1, 2, 0, 0], pad=0) and is_padded([1, 2, 0], [1, 2], pad=0)
    assert not is_padded([1, 2], [1, 2, 5], pad=0)
    assert not is_padded([1, 2], [1, 2, 0, 5], pad=0)
    assert not is_padded([1, 2, 5], [1, 2], pad=0)
    assert not is_padded([1, 2], [1, 3], pad=0)


def test_the_largest_difference_keeps_what_is_no_number():
    for place in range(3):
        differences = [0.0, 0.0, 0.0]
        differences[place] = NAN
        assert np.isnan(largest(differences)) and np.isnan(largest(iter(differences)))
    assert largest([]) == float("inf") == absolute([], []) == relative([], [])
    assert largest([1.0, 3.0, 2.0]) == 3.0


def test_rows_that_cannot_be_computed_fail():
    def broken() -> Iterator[Row]:
        yield Row("a", "good", 1.0, 0.0)
        raise KeyError("what is not there")

    first, second = guarded("a", broken)
    assert first.passed and not second.passed and "KeyError" in second.quantity
    (nothing,) = guarded("b", lambda: [])
    assert nothing.quantity == "nothing was recorded" and not nothing.passed


@pytest.mark.parametrize("name", [*report.FOLDERS, "all"])
def test_empty_folders_fail(tmp_path, capsys, name, monkeypatch):
    """A folder without recordings, or with a sub-folder that has none."""
    goldens = tmp_path / "goldens"
    goldens.mkdir()
    if name != "all":
        (goldens / name).mkdir()
    if name in ("a_forward", "c_training"):
        (goldens / name / "empty").mkdir()
    assert report.main([str(goldens), "--out", str(tmp_path / "page.md")]) == 1
    page = (tmp_path / "page.md").read_text()
    for folder in report.FOLDERS:
        assert f"`{folder}" in page, folder
    assert "| pass |" not in page
    if name in ("a_forward", "c_training"):
        assert f"`{name}/empty`" in capsys.readouterr().err
