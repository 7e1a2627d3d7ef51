"""Filling texts: prompts, replaced blanks, and what is refused."""

from __future__ import annotations

from typing import Any, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from glm_jax.cli.compile_counter import counted_compilations
from glm_jax.errors import UsageError
from glm_jax.generate.fill import fill, score
from glm_jax.generate.prompt import make_prompt
from glm_jax.generate.settings import Sampling
from glm_jax.model import GLM, GLMConfig
from glm_jax.tokenizer import Tokenizer
from tests.generate.letters import LETTERS, LetterTokenizer


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


@pytest.fixture(scope="module")
def unsure(model, params) -> Any:
    """A model that predicts "z" more often than other letters."""
    table = params["word_embedding"].at[LETTERS.index("z")].add(-0.95)
    return params | {"word_embedding": table}


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


def test_each_blank_tells_where_it_stands_and_how_probable_it_is(model, unsure):
    (result,) = filled(model, unsure, ["a[MASK]b[MASK]c"])
    assert result.spans == [(1, 4), (5, 8)]
    for blank in result.blanks:
        assert len(blank.log_probs) == 3 and blank.end_log_prob is None
        assert blank.log_prob == sum(blank.log_probs) < 0


def test_the_most_probable_sample_is_the_text(model, unsure):
    tokenizer = cast(Tokenizer, LetterTokenizer())
    sampling = Sampling(4, samples=5, temperature=3.0, seed=3)
    (result,) = fill(model, unsure, tokenizer, ["a[MASK]b[MASK]"], sampling)
    assert len(result.samples) == 5 and len({sample.text for sample in result.samples}) > 1
    assert result.log_prob == max(sample.log_prob for sample in result.samples)
    (again,) = fill(model, unsure, tokenizer, ["a[MASK]b[MASK]"], sampling)
    assert again == result


def test_a_search_gives_its_other_hypotheses(model, unsure):
    tokenizer = cast(Tokenizer, LetterTokenizer())
    texts = ["a[MASK]b", "[MASK] and [MASK]", "c"]
    results = fill(model, unsure, tokenizer, texts, Sampling(3, beams=3))
    for result in results:
        for blank in result.blanks:
            scores = [other.score or 0.0 for other in (blank, *blank.alternatives)]
            assert len(scores) == 3 and scores == sorted(scores, reverse=True)
    assert fill(model, unsure, tokenizer, texts[1:2], Sampling(3, beams=3)) == results[1:2]


def test_answers_are_scored_by_text_and_by_blank(model, unsure):
    tokenizer = cast(Tokenizer, LetterTokenizer())
    texts = ["a[MASK]b", "[MASK] and [MASK]", "go on"]
    answers = [["z", "zz", "q"], [["z", "z"], ["q", "z"]], ["z"]]
    first, second, third = score(model, unsure, tokenizer, texts, answers)
    assert first[0].log_prob > first[2].log_prob and second[0].log_prob > second[1].log_prob
    assert [len(blank.ids) for blank in first[1].blanks] == [2]
    assert len(second[0].blanks) == 2 and len(third) == 1
    ((alone,),) = score(model, unsure, tokenizer, texts[:1], ["z"])
    assert alone.log_prob == pytest.approx(first[0].log_prob, abs=1e-5)
    with pytest.raises(UsageError, match="3 texts, but answers for 1"):
        score(model, unsure, tokenizer, texts, [["z"]])
    with pytest.raises(UsageError, match=r"2 blanks, but the answer.* is for 1"):
        score(model, unsure, tokenizer, texts[1:2], [["z"]])
    with pytest.raises(UsageError, match=r"30 tokens.*24"):
        score(model, unsure, tokenizer, texts[:1], [["z" * 30]])


def test_a_hundred_texts_of_all_lengths_need_few_programs():
    """JAX counts them: all of them, the smallest too."""
    model = GLM(
        GLMConfig(
            vocab_size=64,
            num_layers=1,
            hidden_size=32,
            num_attention_heads=2,
            max_sequence_length=512,
            layernorm_epsilon=2e-5,  # a program of its own, whatever other tests have run
        )
    )
    inputs = (jnp.zeros((1, 8), jnp.int32), jnp.zeros((1, 2, 8), jnp.int32), jnp.ones(1, jnp.int32))
    params = nn.unbox(jax.jit(model.init)(jax.random.key(0), *inputs))["params"]
    draw = np.random.default_rng(0)
    texts = []
    for _ in range(100):
        letters = draw.choice(list(LETTERS), draw.integers(1, 500)).tolist()
        for place in draw.integers(0, len(letters), draw.integers(1, 6)):
            letters[place] = "[MASK]"
        texts.append("".join(letters))
    tokenizer = cast(Tokenizer, LetterTokenizer())
    with counted_compilations() as compilations:
        alone = [fill(model, params, tokenizer, [text], Sampling(3))[0] for text in texts[:30]]
    # A decoder of layers, an empty cache, a step, and a prompt of 64, 128, 256 and 512 tokens.
    assert 1 <= compilations.count <= 7 and compilations.seconds > 0
    with counted_compilations() as compilations:
        together = fill(model, params, tokenizer, texts, Sampling(3))
    assert 1 <= compilations.count <= 6
    assert [result.text for result in together[:30]] == [result.text for result in alone]


def test_impossible_requests_are_refused(model, params):
    with pytest.raises(UsageError, match="max_blank_length is 0"):
        Sampling(max_blank_length=0)
    large = LetterTokenizer()
    large.vocab_size = 65
    with pytest.raises(UsageError, match=r"65 tokens.*64"):
        filled(model, params, ["[MASK]"], tokenizer=large)
