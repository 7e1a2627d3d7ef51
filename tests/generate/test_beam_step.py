"""Beam search: the original's recorded steps, and against a plain search."""

from __future__ import annotations

import json
from typing import Any

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glm_jax.generate.beam_engine import beam_search
from glm_jax.generate.settings import Sampling
from tests.generate.tiny_decoder import (
    BEGIN,
    ROOM,
    decoder_that_ends_with,
    prompt_of,
    prompts,
    some_params,
    whole_logits,
)
from tests.parity.golden_pieces import search_differences

TOLERANCE = 1e-4
# With weights eight times the initial ones, logits reach 30, and rounding alone exceeds that.
WEIGHT_SCALE = 3.0


@pytest.fixture(scope="module")
def recorded(shared) -> list[dict[str, Any]]:
    return json.loads((shared / "goldens/g_generation/pieces.json").read_text())["beam_scorer"]


def test_every_recorded_step_gives_the_same_beams_and_the_same_end(recorded):
    for case in recorded:
        differs, score = search_differences(case)
        assert not differs and score <= TOLERANCE, case


def plain_search(prompt, ends, sampling: Sampling) -> list[list[tuple[float, list[int]]]]:
    """The same search with lists, one text at a time and one whole pass for every beam and step."""
    fixed: list[tuple[int, int, int]] = [
        (token, place, 0) for place, token in enumerate(prompt.ids)
    ]
    blanks = []
    for mask in prompt.masks:
        found = search_one_blank(fixed, len(prompt.ids), mask, ends, sampling)
        blanks.append(found)
        seen = found[0][1][: sampling.max_blank_length - 1]
        fixed += [(token, mask, step + 1) for step, token in enumerate([BEGIN, *seen])]
    return blanks


def search_one_blank(fixed, prefix_length, mask, ends, sampling: Sampling):
    width, penalty = sampling.beams, sampling.length_penalty
    beams: list[tuple[float, list[int]]] = [(0.0, [])]
    found: list[tuple[float, list[int]]] = []

    def score(total: float, ids: list[int]) -> float:
        return total / (len(ids) + 1) ** penalty

    def add(total: float, ids: list[int]) -> None:
        found.append((score(total, ids), ids))
        found.sort(key=lambda hypothesis: -hypothesis[0])
        del found[width:]

    for _ in range(sampling.max_blank_length):
        candidates = []
        for total, ids in beams:
            part_b = [(token, mask, step + 1) for step, token in enumerate([BEGIN, *ids])]
            log_probs = next_log_probs(fixed + part_b, prefix_length)
            candidates += [(total + float(log_probs[t]), [*ids, t]) for t in range(40)]
        candidates.sort(key=lambda candidate: -candidate[0])
        for total, ids in candidates[:width]:
            if ids[-1] in ends:
                add(total, ids[:-1])
        best = candidates[0][0] / len(candidates[0][1]) ** penalty
        beams = [candidate for candidate in candidates if candidate[1][-1] not in ends][:width]
        if len(found) == width and (sampling.early_stopping or found[-1][0] >= best):
            return found
    for total, ids in beams:
        add(total, ids)
    return found


def next_log_probs(sequence, prefix_length) -> np.ndarray:
    padded = np.zeros((ROOM, 3), int)
    padded[: len(sequence)] = sequence
    logits = whole_logits(
        some_params(WEIGHT_SCALE),
        padded[None, :, 0],
        padded[None, :, 1:].transpose(0, 2, 1),
        np.array([prefix_length]),
    )
    return np.asarray(jax.nn.log_softmax(logits[0, len(sequence) - 1]))


@given(
    texts=st.lists(prompts, min_size=1, max_size=3),
    ends=st.sets(st.integers(0, 39), min_size=2, max_size=2),
    penalty=st.sampled_from([0.0, 0.7, 2.0]),
    early_stopping=st.booleans(),
)
@settings(max_examples=6)
def test_searches_side_by_side_equal_a_plain_search_of_each(texts, ends, penalty, early_stopping):
    sampling = Sampling(
        max_blank_length=4, beams=3, length_penalty=penalty, early_stopping=early_stopping
    )
    decoder = decoder_that_ends_with(sorted(ends), some_params(WEIGHT_SCALE))
    searched = beam_search(decoder, texts, sampling, num_texts=4)
    for text, blanks in zip(texts, searched, strict=True):
        expected = plain_search(text, ends, sampling)
        for found, hypotheses in zip(blanks, expected, strict=True):
            assert [h.blank.ids for h in found] == [ids for _, ids in hypotheses]
            scores = [score for score, _ in hypotheses]
            np.testing.assert_allclose([h.score for h in found], scores, atol=TOLERANCE, rtol=0)
            for hypothesis in found:
                blank = hypothesis.blank
                total = sum(blank.log_probs) + (blank.end_log_prob or 0.0)
                length = (len(blank.ids) + 1) ** penalty
                np.testing.assert_allclose(total / length, hypothesis.score, atol=TOLERANCE, rtol=0)


def test_a_shortest_length_and_no_repetition_hold_in_a_search():
    text, end = prompt_of([5, 6, 7, 8], {1}), 3
    decoder = decoder_that_ends_with([end])
    sampling = Sampling(max_blank_length=6, min_blank_length=4, beams=3, no_repeat_ngram=1)
    ((found,),) = beam_search(decoder, [text], sampling, num_texts=1)
    assert len(found) == 3
    for hypothesis in found:
        ids = hypothesis.blank.ids
        assert len(ids) >= 4 and len(set(ids)) == len(ids)
