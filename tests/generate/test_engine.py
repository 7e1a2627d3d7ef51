"""Filling side by side against a plain loop, one text and one token at a time."""

from __future__ import annotations

import jax
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from glm_jax.generate.engine import ActiveFill, Engine, fill_all, slots_needed
from glm_jax.generate.settings import Sampling
from tests.generate.tiny_decoder import (
    decoder_that_ends_with,
    plain_loop,
    prompt_of,
    prompts,
    some_params,
)

NO_END = 40
TOLERANCE = 1e-5


def ids_of(fills: list[ActiveFill]) -> list[list[list[int]]]:
    return [[blank.ids for blank in filling.blanks] for filling in fills]


def filled(texts, sampling: Sampling, num_rows: int, ends=(NO_END,)) -> list[ActiveFill]:
    fills = [ActiveFill(text, sampling) for text in texts]
    fill_all(decoder_that_ends_with(ends), fills, num_rows)
    return fills


@given(
    st.lists(prompts, min_size=1, max_size=5),
    st.sets(st.integers(0, 39), max_size=12),
    st.sampled_from([1, 2, 4]),
)
@settings(max_examples=10)
def test_texts_filled_side_by_side_equal_a_plain_loop_over_each(texts, ends, num_rows):
    # One number of ends, so that all examples are one program.
    padded = sorted(ends) + [NO_END] * (12 - len(ends))
    found = filled(texts, Sampling(max_blank_length=5), num_rows, padded)
    assert ids_of(found) == [plain_loop(text, ends, 5)[0] for text in texts]


def test_a_blank_may_be_longer_than_a_page_of_the_cache():
    text = prompt_of(list(range(2, 22)), {4, 9})
    (found,) = filled([text], Sampling(max_blank_length=60), 1)
    assert ids_of([found]) == [plain_loop(text, set(), 60)[0]]


@given(st.lists(prompts, min_size=1, max_size=3), st.sets(st.integers(0, 39), max_size=12))
@settings(max_examples=10)
def test_log_probabilities_are_those_of_full_recomputation_at_every_step(texts, ends):
    """All logits of a step, through the most probable tokens and their log-probabilities."""
    padded = sorted(ends) + [NO_END] * (12 - len(ends))
    sampling = Sampling(max_blank_length=5)
    params = some_params(3.0)  # logits of a usual size
    decoder = decoder_that_ends_with(padded, params)
    num_slots = max(slots_needed(text, 5) for text in texts)
    engine = Engine(decoder, num_rows=4, num_slots=num_slots, num_top=40)
    fills = [ActiveFill(text, sampling) for text in texts]
    for filling in fills:
        engine.start([filling])
    while engine.num_active:
        engine.advance(3)
    for filling in fills:
        _, expected = plain_loop(filling.prompt, ends, 5, params)
        steps = [step for blank in filling.blanks for step in blank.top]
        assert len(steps) == len(expected)
        for step, logits in zip(steps, expected, strict=True):
            normalized = np.asarray(jax.nn.log_softmax(logits))
            found = np.empty(40, np.float32)
            found[[top.id for top in step]] = [top.log_prob for top in step]
            np.testing.assert_allclose(found, normalized, atol=TOLERANCE, rtol=0)
        taken = [
            value
            for blank in filling.blanks
            for value in [*blank.log_probs, *([blank.end_log_prob] if blank.end_log_prob else [])]
        ]
        best = [max(top.log_prob for top in step) for step in steps]
        np.testing.assert_allclose(taken, best, atol=TOLERANCE, rtol=0)


def test_the_news_tell_every_token_in_order():
    texts = [prompt_of([2, 3, 4, 5], {1, 2}), prompt_of([7, 8, 9], {0})]
    engine = Engine(decoder_that_ends_with([NO_END]), num_rows=2, num_slots=100)
    fills = [ActiveFill(text, Sampling(max_blank_length=4)) for text in texts]
    for filling in fills:
        engine.start([filling])
    received: dict[ActiveFill, list[list[int]]] = {filling: [[]] for filling in fills}
    while engine.num_active:
        for event in engine.advance(3):
            assert len(received[event.active]) == event.blank + 1
            assert event.token is not None
            received[event.active][-1].append(event.token)
            if event.closes and event.blank + 1 < len(event.active.prompt.masks):
                received[event.active].append([])
    assert list(received.values()) == ids_of(fills)


def test_a_text_that_is_stopped_frees_its_row_for_another():
    first, second = (prompt_of([2, 3, 4, number], {1}) for number in (5, 6))
    engine = Engine(decoder_that_ends_with([NO_END]), num_rows=1, num_slots=100)
    stopped, other = (ActiveFill(text, Sampling(max_blank_length=6)) for text in (first, second))
    engine.start([stopped])
    engine.advance(2)
    assert engine.num_free == 0 and len(stopped.blanks[0].ids) == 2
    engine.stop(stopped)
    assert engine.num_free == 1
    engine.start([other])
    engine.advance()
    assert len(stopped.blanks[0].ids) == 2
    assert ids_of([other]) == [plain_loop(second, set(), 6)[0]]


def test_samples_of_one_text_differ_and_depend_on_nothing_else():
    text, other = prompt_of([2, 3, 4, 5], {1}), prompt_of([9, 8, 7, 6, 5], {0, 3})
    sampling = Sampling(max_blank_length=8, temperature=2.0, samples=3, seed=7)
    decoder = decoder_that_ends_with([NO_END])

    def draw(texts, num_rows):
        fills = [ActiveFill(t, sampling, number) for t in texts for number in range(3)]
        fill_all(decoder, fills, num_rows)
        return ids_of([filling for filling in fills if filling.prompt is text])

    alone = draw([text], 1)
    assert len({str(sample) for sample in alone}) == 3
    assert draw([other, text], 4) == draw([text, other], 2) == alone
    top_one = Sampling(max_blank_length=8, temperature=2.0, top_k=1)
    assert ids_of(filled([text], top_one, 1)) == [plain_loop(text, set(), 8)[0]]
