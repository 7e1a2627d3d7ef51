"""Greedy decoding against a plain loop, one text and one token at a time."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glm_jax.generate.greedy import Prompt, fill_prompts
from glm_jax.model import GLM, GLMConfig

MODEL = GLM(
    GLMConfig(
        vocab_size=40, num_layers=2, hidden_size=32, num_attention_heads=2, max_sequence_length=80
    )
)
BEGIN = 1
ROOM = 160  # of the plain loop


@pytest.fixture(scope="module")
def params():
    inputs = (jnp.zeros((1, 8), jnp.int32), jnp.zeros((1, 2, 8), jnp.int32), jnp.ones(1, jnp.int32))
    initial = nn.unbox(jax.jit(MODEL.init)(jax.random.key(1), *inputs))["params"]
    # Larger than initial values, so that the tokens depend on everything that is seen.
    return jax.tree.map(lambda array: 8.0 * array, initial)


@jax.jit
def logits_of(params, tokens, position_ids, prefix_length):
    return MODEL.apply({"params": params}, tokens, position_ids, prefix_length)


def plain_loop(params, prompt: Prompt, ends: set[int], limit: int) -> list[list[int]]:
    size = len(prompt.ids)
    tokens, places, steps = list(prompt.ids), list(range(size)), [0] * size
    blanks = []
    for mask in prompt.masks:
        blank, fed = [], BEGIN
        while True:
            tokens.append(fed)
            places.append(mask)
            steps.append(len(blank) + 1)
            pad = [0] * (ROOM - len(tokens))
            logits = logits_of(
                params,
                np.array([tokens + pad]),
                np.array([[places + pad, steps + pad]]),
                np.array([size]),
            )
            fed = int(np.argmax(logits[0, len(tokens) - 1]))
            if fed in ends:
                break
            blank.append(fed)
            if len(blank) == limit:
                break
        blanks.append(blank)
    return blanks


def prompt_of(ids: list[int], masks: set[int]) -> Prompt:
    return Prompt(ids, sorted(place % len(ids) for place in masks))


prompts = st.builds(
    prompt_of,
    st.lists(st.integers(2, 39), min_size=3, max_size=12),
    st.sets(st.integers(0, 2), min_size=1, max_size=3),
)


@given(st.lists(prompts, min_size=1, max_size=4), st.sets(st.integers(0, 39), max_size=12))
@settings(deadline=None, max_examples=12)
def test_texts_filled_together_equal_a_plain_loop_over_each(params, texts, ends):
    filled = fill_prompts(
        MODEL, params, texts, begin=BEGIN, ends=sorted(ends) or [40], max_blank_length=5
    )
    assert filled == [plain_loop(params, text, ends, 5) for text in texts]


def test_a_blank_may_outgrow_the_first_buffer(params):
    text = prompt_of(list(range(2, 22)), {4, 9})
    (blanks,) = fill_prompts(MODEL, params, [text], begin=BEGIN, ends=[40], max_blank_length=60)
    assert [len(blank) for blank in blanks] == [60, 60]
    assert [blanks] == [plain_loop(params, text, set(), 60)]
