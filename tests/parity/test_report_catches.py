"""The report fails on one changed value, on NaN and on what is missing, in every folder.

Each folder of recordings is copied in a reduced form. In every quantity that a row compares one
value is changed, and every row must fail; unchanged, the copy must pass.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.parity import report
from tests.parity.golden_exact import block_rows, item_rows
from tests.parity.golden_forward import model_parallel_rows, model_rows
from tests.parity.golden_generation import generation_rows, is_padded
from tests.parity.golden_pieces import piece_rows
from tests.parity.golden_ranks import rank_rows
from tests.parity.golden_statistics import statistics_rows
from tests.parity.golden_tokenizers import tokenizer_rows
from tests.parity.golden_training import folder_rows
from tests.parity.rows import Row, absolute, guarded, largest, relative

NAN = float("nan")
Change = Callable[[np.ndarray], None]


def last_is_off(array: np.ndarray) -> None:
    """Changes one value by a hundredth of the largest there, or by 1 where it is whole."""
    whole = np.issubdtype(array.dtype, np.integer)
    array.flat[-1] += 1 if whole else max(0.01 * float(np.abs(array).max()), 1e-6)


def last_is_nan(array: np.ndarray) -> None:
    """Python's max() would lose a NaN that doesn't come first."""
    array.flat[-1] = NAN


CHANGES = pytest.mark.parametrize("change", [last_is_off, last_is_nan])


def edit_arrays(path: Path, edit: Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]) -> None:
    with np.load(path) as opened:
        arrays = {name: np.array(array) for name, array in opened.items()}
    np.savez(path, **edit(arrays))  # pyright: ignore[reportArgumentType]


def edit_json(path: Path, edit: Callable[[Any], Any]) -> None:
    value = json.loads(path.read_text())
    edited = edit(value)
    path.write_text(json.dumps(value if edited is None else edited))


def copied(shared: Path, tmp_path: Path, name: str) -> Path:
    """A copy of one folder; its parent stands for all recordings."""
    goldens = tmp_path / "goldens"
    shutil.copytree(shared / "goldens" / name, goldens / name)
    (tmp_path / "vocabs").symlink_to(shared / "vocabs")
    return goldens


def assert_all_fail(rows: Iterator[Row]) -> None:
    found = list(rows)
    assert found
    assert not [row for row in found if row.passed]


def assert_all_pass(rows: Iterator[Row]) -> None:
    found = list(rows)
    assert found
    assert not [row for row in found if not row.passed]


@pytest.mark.parametrize("model", ["block2d_scale1", "block2d_scale8", "pos1d", "relative_xl"])
@CHANGES
def test_forward_passes(shared, tmp_path, model, change):
    goldens = copied(shared, tmp_path, f"a_forward/{model}")
    folder = goldens / "a_forward" / model
    kept = ("seg0",) if model == "relative_xl" else ("sep_vector", "sep_full")

    def reduce(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {name: array for name, array in arrays.items() if name.split("/")[0] in kept}

    def spoil(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        for name, array in arrays.items():
            if name.split("/")[1].startswith(("logits", "hidden", "mem_")):
                change(array)
        return arrays

    edit_arrays(folder / "io.npz", reduce)
    assert_all_pass(model_rows(folder, report.load))
    edit_arrays(folder / "io.npz", spoil)
    assert_all_fail(model_rows(folder, report.load))


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


@pytest.mark.parametrize("run", ["adamw_cosine", "adamw_linear_accum"])
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


BLOCK_CHANGES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "tokens": lambda case: case["built"][-1]["tokens"].__setitem__(-1, 7),
    "sep": lambda case: case["built"][-1].update(sep=case["built"][-1]["sep"] + 1),
    "batch": lambda case: case["batch"]["text"][-1].__setitem__(-1, 7),
    "position": lambda case: case["batch"]["position_id"][-1][0].__setitem__(-1, 7),
    "attention_mask": lambda case: case["batch"]["attention_mask"].__setitem__(-1, 7),
}


@pytest.mark.parametrize("name", BLOCK_CHANGES)
def test_blanks(shared, tmp_path, name):
    goldens = copied(shared, tmp_path, "d_blocks")
    examples = goldens / "d_blocks/examples"
    for path in examples.glob("*.json"):
        if path.stem not in ("bert", "mixed_10b"):
            path.unlink()
            continue

        def spoil(recorded: dict[str, Any]) -> None:
            recorded["cases"] = [case for case in recorded["cases"] if case["built"]][-1:]
            BLOCK_CHANGES[name](recorded["cases"][0])

        edit_json(path, spoil)
    rows = list(block_rows(goldens))
    kind = "rows that differ" if name in ("tokens", "sep") else "batches that differ"
    failed = [row for row in rows if not row.passed]
    assert [row.golden for row in failed] == ["d_blocks/bert", "d_blocks/mixed_10b"]
    assert all(row.quantity.startswith(kind) for row in failed)


def test_split_samples_items_and_unidirectional_samples(shared, tmp_path):
    goldens = copied(shared, tmp_path, "d_blocks")
    folder = goldens / "d_blocks"
    for path in (folder / "examples").glob("*.json"):
        if path.stem not in ("short_seq", "gpt_infill"):
            path.unlink()

    def spoil_split(recorded: dict[str, Any]) -> None:
        recorded["cases"] = recorded["cases"][:1]
        recorded["cases"][0]["split"][0]["text"][5] = 7

    edit_json(folder / "examples/short_seq.json", spoil_split)
    edit_json(
        folder / "examples/gpt_infill.json",
        lambda recorded: recorded["cases"][-1]["batch"]["target"][-1].__setitem__(-1, 7),
    )
    edit_json(
        folder / "block_dataset.json",
        lambda recorded: recorded["items_for_idx_0_to_29"]["across=True,non_sentence_start=0.0"][
            -1
        ]["text"].__setitem__(5, 7),
    )
    assert_all_fail(item_rows(goldens))
    failed = [row.quantity for row in block_rows(goldens) if not row.passed]
    assert any("split samples" in quantity for quantity in failed)
    assert any("unidirectional samples" in quantity for quantity in failed)


def test_statistics(shared, tmp_path):
    goldens = copied(shared, tmp_path, "d_blocks")

    def spoil(recorded: dict[str, Any]) -> dict[str, Any]:
        recorded["block_length_distribution_avg3_max40"][3] *= 1.001
        kept = {name: recorded[name] for name in recorded if name.startswith(("bert/", "block"))}
        for run in kept.values():
            if isinstance(run, dict):
                run["mean_masked_fraction"] *= 1.1
                run["num_spans_hist"]["7"] = run["num_spans_hist"].get("7", 0) + 3000
        return kept

    edit_json(goldens / "d_blocks/statistics.json", spoil)
    assert_all_fail(statistics_rows(goldens))


def test_tokenizers(shared, tmp_path):
    goldens = copied(shared, tmp_path, "e_tokenizers")

    def spoil(recorded: dict[str, Any]) -> None:
        recorded["num_tokens"] += 1
        recorded["encode"][-1]["ids"][-1:] = [7]
        recorded["decode_random"][-1]["tokens"][-1] += "x"

    for path in (goldens / "e_tokenizers").glob("*.json"):
        if path.stem != "texts":
            edit_json(path, spoil)
    assert_all_fail(tokenizer_rows(goldens, goldens.parent / "vocabs"))
    edit_json(goldens / "e_tokenizers/texts.json", lambda texts: [*texts, "one more"])
    failed = [r for r in tokenizer_rows(goldens, goldens.parent / "vocabs") if not r.passed]
    assert sum("texts encoded" in row.quantity for row in failed) == len(failed) / 3


@pytest.mark.slow
def test_generation(shared, tmp_path):
    goldens = copied(shared, tmp_path, "g_generation")
    folder = goldens / "g_generation"

    def spoil_samples(cases: list[dict[str, Any]]) -> list[dict[str, Any]]:
        cases[0]["generated"][-1] += 1
        return cases[:1]

    def spoil_searches(cases: list[dict[str, Any]]) -> list[dict[str, Any]]:
        cases[0]["hypotheses"][-1][-1]["score"] += 0.01
        return cases[:1]

    def spoil_blanks(cases: list[dict[str, Any]]) -> list[dict[str, Any]]:
        cases[0]["filled_ids"][-1].append(7)  # one token more, which isn't padding
        return cases[:1]

    edit_json(folder / "generate_samples.json", spoil_samples)
    edit_json(folder / "seq2seq_beam.json", spoil_searches)
    edit_json(folder / "blank_lm.json", spoil_blanks)
    (folder / "pieces.npz").unlink()
    assert_all_fail(generation_rows(goldens, report.load))


@CHANGES
def test_single_steps_of_generation(shared, tmp_path, change):
    goldens = copied(shared, tmp_path, "g_generation")
    folder = goldens / "g_generation"
    edit_json(
        folder / "pieces.json", lambda cases: cases | {"beam_scorer": cases["beam_scorer"][-1:]}
    )
    assert_all_pass(piece_rows(folder))

    def spoil(cases: dict[str, Any]) -> None:
        search = cases["beam_scorer"][-1]
        search["scores"][-1] = NAN if change is last_is_nan else search["scores"][-1] + 0.01
        search["decoded"][0][-1] += 1

    def spoil_arrays(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        for name in ("top_k_logits_6/out", "processors_4/min_length"):
            kept = np.flatnonzero(np.isfinite(arrays[name]))[-1:]
            part = arrays[name].flat[kept]
            change(part)
            arrays[name].flat[kept] = part
        return arrays

    edit_json(folder / "pieces.json", spoil)
    edit_arrays(folder / "pieces.npz", spoil_arrays)
    assert_all_fail(piece_rows(folder))


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
