"""The report fails on one changed value in what must be equal: blanks, tokenizers, generation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.parity import report
from tests.parity.golden_exact import block_rows, item_rows
from tests.parity.golden_generation import generation_rows
from tests.parity.golden_pieces import piece_rows
from tests.parity.golden_statistics import statistics_rows
from tests.parity.golden_tokenizers import tokenizer_rows
from tests.parity.spoiled import (
    CHANGES,
    NAN,
    assert_all_fail,
    assert_all_pass,
    copied,
    edit_arrays,
    edit_json,
    last_is_nan,
)

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
