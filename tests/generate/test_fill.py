"""Filling texts: prompts, replaced blanks, and what is refused."""

from __future__ import annotations

import re
from typing import Any, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from glm_jax.errors import UsageError
from glm_jax.generate.fill import fill
from glm_jax.generate.prompt import make_prompt
from glm_jax.generate.settings import Sampling
from glm_jax.model import GLM, GLMConfig
from glm_jax.tokenizer import Tokenizer

LETTERS = "abcdefghijklmnopqrstuvwxyz "
SPECIAL_TEXT = {"ENC": "[CLS]", "eos": "<eos>", "MASK": "[MASK]", "gMASK": "[gMASK]"}


class LetterTokenizer:
    """One id per letter, then special tokens."""

    def __init__(self, generation_mask: bool = True) -> None:
        names = ["ENC", "eos", "MASK", "sop", "eop", *(["gMASK"] if generation_mask else [])]
        self.special = {name: len(LETTERS) + place for place, name in enumerate(names)}
        self.vocab_size = len(LETTERS) + len(names)

    def encode(self, text: str) -> list[int]:
        ids = {SPECIAL_TEXT[name]: id for name, id in self.special.items() if name in SPECIAL_TEXT}
        parts = re.findall(r"\[g?MASK\]|.", text)
        return [ids[part] if part in ids else LETTERS.index(part) for part in parts]

    def decode(self, ids: list[int]) -> str:
        return "".join(LETTERS[id] if id < len(LETTERS) else f"<{id}>" for id in ids)


@pytest.fixture(scope="module")
def model() -> GLM:
    return GLM(
        GLMConfig(
            vocab_size=64,
            num_layers=1,
            hidden_size=32,
            num_attention_heads=2,
            max_sequence_length=24,
        )
    )


@pytest.fixture(scope="module")
def params(model) -> Any:
    """A model that always predicts "z", whatever it sees."""
    inputs = (jnp.zeros((1, 8), jnp.int32), jnp.zeros((1, 2, 8), jnp.int32), jnp.ones(1, jnp.int32))
    params = nn.unbox(jax.jit(model.init)(jax.random.key(0), *inputs))["params"]
    params["final_layernorm"]["scale"] *= 0.0
    params["final_layernorm"]["bias"] += 1.0
    params["word_embedding"] = params["word_embedding"].at[LETTERS.index("z")].add(1.0)
    return params


def filled(model, params, texts, limit=3, tokenizer=None):
    tokenizer = cast(Tokenizer, tokenizer or LetterTokenizer())
    return fill(model, params, tokenizer, texts, Sampling(limit))


def test_every_blank_is_replaced_in_its_text(model, params):
    results = filled(model, params, ["a[MASK]b[MASK]c", "no end [gMASK]", "[MASK]"])
    assert [result.text for result in results] == ["azzzbzzzc", "no end zzz", "zzz"]
    assert [len(result.blanks) for result in results] == [2, 1, 1]
    blank = results[0].blanks[0]
    assert (blank.text, blank.ids) == ("zzz", [LETTERS.index("z")] * 3)


def test_a_text_without_a_blank_is_continued(model, params):
    (result,) = filled(model, params, ["go on  "])
    assert (result.text, len(result.blanks)) == ("go onzzz", 1)


def test_many_texts_keep_their_order(model, params):
    texts = [f"{letter}[MASK]" for letter in LETTERS]
    results = filled(model, params, texts)
    assert [result.text for result in results] == [f"{letter}zzz" for letter in LETTERS]
    assert filled(model, params, []) == []


@pytest.mark.parametrize("end", ["eop", "eos"])
def test_an_end_token_ends_the_blank(model, params, end):
    tokenizer = LetterTokenizer()
    ending = params | {
        "word_embedding": params["word_embedding"].at[tokenizer.special[end]].add(2.0)
    }
    (result,) = filled(model, ending, ["a[MASK]b"])
    assert (result.text, result.blanks[0].ids) == ("ab", [])


@pytest.mark.parametrize(
    ("text", "generation_mask", "prompt"),
    [
        ("ab[MASK]", True, ["ENC", "a", "b", "MASK", "eos"]),
        ("ab[gMASK]", True, ["ENC", "a", "b", "gMASK"]),
        ("[gMASK]b", True, ["ENC", "gMASK", "b", "eos"]),
        ("a[MASK]", False, ["ENC", "a", "MASK", "eos"]),
    ],
)
def test_prompts_end_in_eos_except_after_a_generation_mask(text, generation_mask, prompt):
    tokenizer = LetterTokenizer(generation_mask)
    special = tokenizer.special
    made = make_prompt(tokenizer.encode(text), special)
    assert made.ids == [special.get(name, LETTERS.find(name)) for name in prompt]
    assert made.masks == [i for i, name in enumerate(prompt) if name.endswith("MASK")]


def test_the_limit_stays_inside_the_position_table(model, params):
    (result,) = filled(model, params, ["a[MASK]"], limit=1000)
    assert len(result.blanks[0].ids) == model.config.max_sequence_length


def test_the_longest_text_fits_and_one_more_is_refused(model, params):
    longest = "a" * (model.config.max_sequence_length - 2) + "[MASK]"
    assert np.all([len(r.blanks) == 1 for r in filled(model, params, [longest])])
    with pytest.raises(UsageError, match=r"26 tokens.*25"):
        filled(model, params, ["short [MASK]", "a" + longest])


def test_impossible_requests_are_refused(model, params):
    with pytest.raises(UsageError, match="max_blank_length is 0"):
        Sampling(max_blank_length=0)
    large = LetterTokenizer()
    large.vocab_size = 65
    with pytest.raises(UsageError, match=r"65 tokens.*64"):
        filled(model, params, ["[MASK]"], tokenizer=large)
