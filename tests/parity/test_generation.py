"""What the original code generated, exactly: one text at a time and texts of all kinds at once."""

from __future__ import annotations

import pytest

from tests.parity.golden_generation import (
    FOLDER,
    blank_lm_differences,
    load_cases,
    sample_differences,
    search_differences,
    special_ids,
)


@pytest.fixture(scope="module")
def golden(shared, load_recorded):
    folder = shared / "goldens" / FOLDER
    return folder, load_recorded(FOLDER), special_ids(folder)


@pytest.mark.parametrize("at_once", [pytest.param(1, marks=pytest.mark.slow), 8])
def test_every_recorded_prompt_is_filled_as_recorded(golden, at_once):
    folder, network, special = golden
    cases = load_cases(folder, "generate_samples")
    assert sorted({case["num_beams"] for case in cases}) == [1, 2, 4]
    assert sample_differences(network, special, cases, at_once) == []


@pytest.mark.parametrize("at_once", [pytest.param(1, marks=pytest.mark.slow), 4])
def test_every_recorded_search_finds_the_same_hypotheses_and_scores(golden, at_once):
    folder, network, special = golden
    cases = load_cases(folder, "seq2seq_beam")
    assert len(cases) == 5
    assert search_differences(network, special, cases, at_once) == []


@pytest.mark.parametrize("at_once", [pytest.param(1, marks=pytest.mark.slow), 4])
def test_every_recorded_text_is_filled_without_repeating_itself(golden, at_once):
    folder, network, special = golden
    cases = load_cases(folder, "blank_lm")
    assert any(case["settings"]["ngram"] for case in cases)
    assert blank_lm_differences(network, special, cases, at_once) == []
