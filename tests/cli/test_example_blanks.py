"""Held-out sentences are real ones, with the words of their blank remembered."""

from functools import partial

import flax.linen as nn
import jax
import numpy as np
import pytest

from glm_jax.cli.example_blanks import (
    guesses,
    held_out_blanks,
    plain_sentences,
    shown_share,
    with_blank,
)
from glm_jax.data.store.store import open_store
from glm_jax.generate.fill import Filler
from glm_jax.generate.score import score_answers
from glm_jax.model import GLM, GLMConfig
from glm_jax.model.initial import initial_params
from glm_jax.tokenizer import load_tokenizer


def test_sentences_come_from_the_split(tiny_store):
    tokenizer = load_tokenizer(tiny_store)
    split = open_store(tiny_store).split("validation")
    blanks = held_out_blanks(split, tokenizer, 3, max_tokens=60)
    assert len(blanks) == len({blank.text for blank in blanks}) == 3
    text = " ".join(
        tokenizer.decode(split.read(np.zeros(1, np.int64), split.num_tokens)[0].tolist()).split()
    )
    for blank in blanks:
        assert blank.text.count("[gMASK]") == 1
        assert f"{blank.words} {blank.ending}" in text
        assert len(tokenizer.encode(blank.text)) <= 60
    assert held_out_blanks(split, tokenizer, 3, max_tokens=5) == []


def test_code_and_lists_are_no_plain_sentences():
    text = (
        "The value of the expression is then bound to the name on the left. "
        "Use x = f(y, 3) when there is more than one of them in the loop.\n\n"
        "Short one.\n\nA heading without a full stop that goes on for a good while longer"
    )
    assert plain_sentences(text) == [
        "The value of the expression is then bound to the name on the left."
    ]


def test_the_blank_takes_the_last_third():
    blank = with_blank("One two three four five six.", "[gMASK]")
    assert blank.words == "One two three four" and blank.ending == "five six."
    assert blank.text == f"{blank.words} [gMASK]"


def test_answers_come_with_their_probabilities_beside_that_of_the_truth(tiny_store):
    tokenizer = load_tokenizer(tiny_store)
    config = GLMConfig(
        vocab_size=512,
        num_layers=1,
        hidden_size=16,
        num_attention_heads=2,
        max_sequence_length=64,
    )
    model = GLM(config)
    params = nn.unbox(jax.jit(partial(initial_params, model))(jax.random.key(0)))
    filler = Filler(model, params, tokenizer)
    blanks = held_out_blanks(open_store(tiny_store).split("validation"), tokenizer, 2, 60)
    found = guesses(filler, blanks)
    for blank, guess in zip(blanks, found, strict=True):
        shares = [share for _, share in guess.answers]
        assert len(shares) == 3 and shares == sorted(shares, reverse=True)
        first = tokenizer.encode_text(f"{blank.words} {blank.ending}")[
            len(tokenizer.encode_text(blank.words))
        ]
        prompt = filler.read(blank.text).prompt
        scores = score_answers(filler.decoder, [prompt], [[[[first, 7]]]], num_rows=1)
        assert guess.truth[1] == pytest.approx(
            np.exp(scores[0][0].blanks[0].log_probs[0]), rel=1e-4
        )
        assert guess.truth[1] <= shares[0] * (1 + 1e-4)


def test_probabilities_are_shown_with_one_or_two_digits():
    shares = {0.234: "23%", 0.0996: "10%", 0.0141: "1.4%", 0.00021: "0.02%", 1e-6: "below 0.01%"}
    assert {share: shown_share(share) for share in shares} == shares
