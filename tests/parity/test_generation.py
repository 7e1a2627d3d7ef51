"""Greedy blank filling against what the original code generated."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from glm_jax.generate.fill import MASK_NAMES, Sampling, fill_tokens, make_prompt
from glm_jax.generate.greedy import Prompt, fill_prompts

FOLDER = "g_generation"


@pytest.fixture(scope="module")
def special(shared: Path) -> dict[str, int]:
    commands = json.loads((shared / "goldens" / FOLDER / "tokenizer.json").read_text())["commands"]
    return {name: command["id"] for name, command in commands.items()}


@pytest.fixture(scope="module")
def greedy_cases(shared: Path) -> list[dict]:
    cases = json.loads((shared / "goldens" / FOLDER / "generate_samples.json").read_text())
    return [case for case in cases if case["num_beams"] == 1]


def recorded_form(blanks: list[list[int]], special: dict[str, int]) -> list[int]:
    """All blanks in a row, each begun by sop."""
    return [token for blank in blanks for token in (special["sop"], *blank)]


def test_blanks_of_every_recorded_prompt_equal_the_original(load_recorded, greedy_cases, special):
    model, params = load_recorded(FOLDER)
    (limit,) = {case["out_seq_length"] for case in greedy_cases}
    filled = fill_prompts(
        model,
        params,
        [
            Prompt(case["context"], [done["mask_position"] for done in case["per_mask"]])
            for case in greedy_cases
        ],
        begin=special["sop"],
        ends=(special["eop"], special["eos"]),
        max_blank_length=limit,
    )
    assert len(greedy_cases) == 12
    for case, blanks in zip(greedy_cases, filled, strict=True):
        assert recorded_form(blanks, special) == case["generated"], case["kind"]


@pytest.mark.parametrize("kind", ["MASK", "MASKx3", "sMASK", "gMASK", "MASK+gMASK"])
def test_a_text_becomes_the_recorded_prompt_and_blanks(load_recorded, greedy_cases, special, kind):
    model, params = load_recorded(FOLDER)
    case = next(case for case in greedy_cases if case["kind"] == kind)
    context = case["context"]
    text = context[1:-1] if context[-1] == special["eos"] else context[1:]
    masks = frozenset(special[name] for name in MASK_NAMES)
    assert make_prompt(text, special, masks).ids == context
    sampling = Sampling(max_blank_length=case["out_seq_length"])
    (blanks,) = fill_tokens(model, params, [text], special, sampling)
    assert recorded_form(blanks, special) == case["generated"]
