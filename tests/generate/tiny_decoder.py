"""A small network with large weights, and a plain decoding loop to compare with."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import strategies as st

from glm_jax.generate.decoder import Decoder, make_decoder
from glm_jax.generate.prompt import Prompt
from glm_jax.model import GLM, GLMConfig

MODEL = GLM(
    GLMConfig(
        vocab_size=40, num_layers=2, hidden_size=32, num_attention_heads=2, max_sequence_length=80
    )
)
BEGIN = 1
ROOM = 160  # of the plain loop


@functools.cache
def some_params(scale: float = 8.0) -> Any:
    """Larger than initial values, so that the tokens depend on everything that is seen."""
    inputs = (jnp.zeros((1, 8), jnp.int32), jnp.zeros((1, 2, 8), jnp.int32), jnp.ones(1, jnp.int32))
    initial = nn.unbox(jax.jit(MODEL.init)(jax.random.key(1), *inputs))["params"]
    return jax.tree.map(lambda array: scale * array, initial)


def decoder_that_ends_with(ends: Sequence[int], params: Any = None) -> Decoder:
    """A decoder of the small network; ids beyond its vocabulary never end a blank."""
    names = [str(end) for end in ends]
    special = {"sop": BEGIN, **dict(zip(names, ends, strict=True))}
    return make_decoder(MODEL, params or some_params(), special, ends=names)


@jax.jit
def whole_logits(params, tokens, position_ids, prefix_length):
    return MODEL.apply({"params": params}, tokens, position_ids, prefix_length)


def plain_loop(
    prompt: Prompt,
    ends: set[int],
    limit: int,
    params: Any = None,
) -> tuple[list[list[int]], list[np.ndarray]]:
    """Fills one text by one pass over all of it for every token; the logits of every step too."""
    size = len(prompt.ids)
    tokens, places, steps = list(prompt.ids), list(range(size)), [0] * size
    blanks, all_logits = [], []
    for mask in prompt.masks:
        blank, fed = [], BEGIN
        while True:
            tokens.append(fed)
            places.append(mask)
            steps.append(len(blank) + 1)
            pad = [0] * (ROOM - len(tokens))
            logits = whole_logits(
                params or some_params(),
                np.array([tokens + pad]),
                np.array([[places + pad, steps + pad]]),
                np.array([size]),
            )
            all_logits.append(np.asarray(logits[0, len(tokens) - 1]))
            fed = int(np.argmax(all_logits[-1]))
            if fed in ends:
                break
            blank.append(fed)
            if len(blank) == limit:
                break
        blanks.append(blank)
    return blanks, all_logits


def prompt_of(ids: list[int], masks: set[int]) -> Prompt:
    return Prompt(ids, sorted(place % len(ids) for place in masks))


prompts = st.builds(
    prompt_of,
    st.lists(st.integers(2, 39), min_size=3, max_size=12),
    st.sets(st.integers(0, 2), min_size=1, max_size=3),
)
