"""Scores of answers against one whole pass for each."""

from __future__ import annotations

import jax
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from glm_jax.generate.score import score_answers
from tests.generate.tiny_decoder import (
    BEGIN,
    MODEL,
    ROOM,
    decoder_that_ends_with,
    prompts,
    some_params,
    whole_logits,
)

END = 3
TOLERANCE = 1e-5


def whole_pass(prompt, answer) -> list[list[float]]:
    """Log-probabilities of every token and end, blank by blank."""
    size = len(prompt.ids)
    sequence = [(token, place, 0) for place, token in enumerate(prompt.ids)]
    targets = []
    for mask, ids in zip(prompt.masks, answer, strict=True):
        sequence += [(token, mask, step + 1) for step, token in enumerate([BEGIN, *ids])]
        targets += [*ids, END]
    padded = np.zeros((ROOM, 3), int)
    padded[: len(sequence)] = sequence
    inputs = padded[None, :, 0], padded[None, :, 1:].transpose(0, 2, 1), np.array([size])
    table = np.asarray(jax.nn.log_softmax(whole_logits(some_params(3.0), *inputs)[0]))
    values = iter(table[size + place, token] for place, token in enumerate(targets))
    return [[float(next(values)) for _ in range(len(ids) + 1)] for ids in answer]


@st.composite
def texts_with_answers(draw):
    prompt = draw(prompts)
    blank = st.lists(st.integers(4, 39), max_size=4)
    answer = st.lists(blank, min_size=len(prompt.masks), max_size=len(prompt.masks))
    return prompt, draw(st.lists(answer, max_size=5))


@given(st.lists(texts_with_answers(), min_size=1, max_size=3), st.sampled_from([1, 4]))
@settings(max_examples=8)
def test_scores_in_batches_equal_a_whole_pass_for_each_answer(texts, num_rows):
    decoder = decoder_that_ends_with([END], some_params(3.0))
    assert decoder.model.config == MODEL.config
    some, answers = [text for text, _ in texts], [answers for _, answers in texts]
    found = score_answers(decoder, some, answers, num_rows=num_rows)
    assert [len(scores) for scores in found] == [len(of_text) for of_text in answers]
    for prompt, of_text, scores in zip(some, answers, found, strict=True):
        for answer, score in zip(of_text, scores, strict=True):
            expected = whole_pass(prompt, answer)
            for ids, blank, values in zip(answer, score.blanks, expected, strict=True):
                assert blank.ids == ids
                got = [*blank.log_probs, blank.end_log_prob]
                np.testing.assert_allclose(got, values, atol=TOLERANCE, rtol=0)
            total = sum(sum(values) for values in expected)
            np.testing.assert_allclose(score.log_prob, total, atol=1e-4, rtol=0)
