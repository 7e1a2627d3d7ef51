"""Held-out sentences are real ones, with the words of their blank remembered."""

import re
from functools import partial

import flax.linen as nn
import jax
import numpy as np
import pytest

from glm_jax.cli.example_blanks import (
    Guess,
    HeldOutBlank,
    Token,
    ending_ids,
    guesses,
    held_out_blanks,
    plain_sentences,
    shown_share,
    surest,
    with_blank,
    word_starts,
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


@pytest.fixture(scope="module")
def filler(tiny_store):
    tokenizer = load_tokenizer(tiny_store)
    config = GLMConfig(
        vocab_size=512, num_layers=1, hidden_size=16, num_attention_heads=2, max_sequence_length=64
    )
    model = GLM(config)
    # So large that probabilities differ.
    params = nn.unbox(jax.jit(partial(initial_params, model))(jax.random.key(0)))
    return Filler(model, jax.tree.map(lambda values: 5 * values, params), tokenizer)


def test_words_are_guessed_from_all_words_before_them(filler, tiny_store):
    tokenizer = filler.tokenizer
    blanks = held_out_blanks(open_store(tiny_store).split("validation"), tokenizer, 2, 60)
    found = guesses(filler, blanks)
    sentences = [f"{blank.words} {blank.ending}" for blank in blanks]
    assert {guess.sentence for guess in found} == set(sentences)
    assert len(found) > len(blanks)
    by_sentence = dict(zip(sentences, blanks, strict=True))
    for guess in found:
        blank = by_sentence[guess.sentence]
        shares = [token.share for token in guess.answers]
        assert len(shares) == 3 and shares == sorted(shares, reverse=True)
        # The ids of the answer up to the word; its own first one is scored after them.
        written = len(tokenizer.encode_text(guess.before)) - len(tokenizer.encode_text(blank.words))
        ids = ending_ids(tokenizer, blank)[: written + 1]
        assert guess.truth.id == ids[-1]
        prompts = [filler.read(blank.text).prompt]
        other = guess.answers[0].id
        answers = [[ids], [[*ids[:-1], other]]]
        (scores,) = score_answers(filler.decoder, prompts, [answers], num_rows=2)
        truth, best = (np.exp(score.blanks[0].log_probs[-1]) for score in scores)
        assert guess.truth.share == pytest.approx(truth, rel=1e-4)
        assert shares[0] == pytest.approx(best, rel=1e-4)
        assert guess.is_right == (other == ids[-1])


def test_the_surest_guesses_are_shown_whether_right_or_not_each_answer_and_sentence_once():
    def guess(before: str, after: str, answer: int, share: float, truth: int) -> Guess:
        return Guess(before, after, [Token(answer, "", share)], Token(truth, "", 0.1))

    made = [
        guess("a b", "c d", 1, 0.5, 1),
        guess("a b c", "d", 2, 0.9, 3),
        guess("e", "f", 2, 0.8, 2),
        guess("g", "h", 3, 0.1, 4),
        guess("i", "j", 4, 0.7, 4),
    ]
    assert surest(made, 5) == [made[1], made[4], made[3]]
    assert surest(made, 1) == [made[1]]
    assert [one.is_right for one in made] == [True, False, True, False, True]


def test_words_are_left_out_that_start_with_no_token_of_their_own(tiny_store):
    class JoinedWords:
        """Every character is a token, except for a space and the letter after it before `x`."""

        def encode_text(self, text: str) -> list[str]:
            return re.findall(r"x | ?.", text)

    blank = HeldOutBlank("", "one", "two ax three")
    assert word_starts(JoinedWords(), blank) == {0: 0, 1: 3}  # type: ignore[arg-type]
    tokenizer = load_tokenizer(tiny_store)
    plain = with_blank("One two three four five six.", "[gMASK]")
    starts = word_starts(tokenizer, plain)
    ids = ending_ids(tokenizer, plain)
    assert tokenizer.decode(ids).strip() == plain.ending
    assert tokenizer.decode(ids[starts[1] :]).strip() == "six."


def test_probabilities_are_shown_with_one_or_two_digits():
    shares = {0.234: "23%", 0.0996: "10%", 0.0141: "1.4%", 0.00021: "0.02%", 1e-6: "below 0.01%"}
    assert {share: shown_share(share) for share in shares} == shares
