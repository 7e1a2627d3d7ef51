"""Held-out sentences are real ones, with the words of their blank remembered."""

import numpy as np

from glm_jax.cli.example_blanks import held_out_blanks, plain_sentences, with_blank
from glm_jax.data.store.store import open_store
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
        assert blank.text.count("[MASK]") == 1
        assert blank.text.replace("[MASK]", blank.answer) in text
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


def test_the_blank_takes_the_middle_words():
    blank = with_blank("One two three four five six.")
    assert blank.text == "One two [MASK] five six." and blank.answer == "three four"
