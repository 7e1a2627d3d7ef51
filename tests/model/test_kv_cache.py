"""Positions that go on from cached keys and values get what one whole pass would give them."""

from __future__ import annotations

import dataclasses
import functools
import json
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glm_jax.model import GLM, GLMConfig
from glm_jax.model.attention.mask import memory_mask, prefix_mask
from glm_jax.model.decoding import DecodingGLM, by_layer
from glm_jax.model.kv_cache import empty_cache, put_prompt, put_prompts, slots_in_use
from glm_jax.model.paged_attention import (
    PAGE_SIZE,
    CacheLayout,
    LayerCache,
    PrefixKeyValue,
    attend_at_least,
    attend_pages,
    cache_layout,
)

CONFIG = GLMConfig(
    vocab_size=64, num_layers=2, hidden_size=16, num_attention_heads=2, max_sequence_length=20
)
MODEL = GLM(CONFIG)
DECODING = DecodingGLM(CONFIG)
BATCH, LENGTH, SLOTS = 3, 12, 64
TOLERANCE = 1e-5


def some_inputs(seed: int) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(seed)
    tokens = draw.integers(0, CONFIG.vocab_size, (BATCH, LENGTH))
    return tokens, draw.integers(0, CONFIG.num_positions, (BATCH, 2, LENGTH))


@functools.cache
def some_params() -> Any:
    initial = MODEL.init(jax.random.key(0), *some_inputs(0), np.zeros(BATCH, int))["params"]
    # Larger than the real initial values, so that attention is far from uniform; not so large that
    # logits of 10 have more rounding than the tolerance.
    return jax.tree.map(lambda array: 3.0 * array, nn.unbox(initial))


@functools.partial(jax.jit, static_argnums=0)
def whole(model, params, tokens, position_ids, prefix_length, attention_mask=None):
    inputs = (tokens, position_ids, prefix_length)
    return model.apply({"params": params}, *inputs, attention_mask=attention_mask)


@functools.cache
def decoding_params() -> Any:
    return by_layer(some_params())


@functools.partial(jax.jit, static_argnums=0)
def logits_and_cache(method, params, *inputs):
    hidden, cache = DECODING.apply({"params": params}, *inputs, method=method)
    return DECODING.apply({"params": params}, hidden, method="logits"), cache


def extend(tokens, position_ids, cache, start, attention_mask):
    inputs = (tokens, position_ids, cache, start, attention_mask)
    return logits_and_cache("extend", decoding_params(), *inputs)


def read(tokens, position_ids, prefix_length):
    return logits_and_cache("read", decoding_params(), tokens, position_ids, prefix_length)


def decode(tokens, position_ids, prefix_length, pieces: list[int]) -> np.ndarray:
    """Logits [B, L, V] of a sequence that is run piece by piece, the first with the prefix."""
    cache, start, logits = empty_cache(CONFIG, BATCH, SLOTS), 0, []
    for number, length in enumerate(pieces):
        inputs = tokens[:, start : start + length], position_ids[:, :, start : start + length]
        prefix = prefix_length if number == 0 else np.zeros_like(prefix_length)
        starts = np.full(BATCH, start)
        mask = memory_mask(starts, length, SLOTS, prefix_length=prefix)
        piece, cache = extend(*inputs, cache, starts, mask)
        logits.append(piece)
        start += length
    return np.concatenate(logits, axis=1)


@given(
    seed=st.integers(0, 1000),
    first=st.sampled_from([4, 6]),
    rest=st.lists(st.sampled_from([1, 2, 3]), min_size=8, max_size=8),
)
@settings(deadline=None, max_examples=10)
def test_pieces_of_any_length_give_the_logits_of_one_pass(seed, first, rest):
    tokens, position_ids = some_inputs(seed)
    pieces = [first]
    while sum(pieces) < LENGTH:
        pieces.append(min(rest[len(pieces) - 1], LENGTH - sum(pieces)))
    prefix_length = np.random.default_rng(seed).integers(0, first + 1, BATCH)
    expected = whole(MODEL, some_params(), tokens, position_ids, prefix_length)
    decoded = decode(tokens, position_ids, prefix_length, pieces)
    np.testing.assert_allclose(decoded, expected, atol=TOLERANCE, rtol=0)


def test_rows_of_different_lengths_go_on_each_from_its_own_end():
    """Prompts padded to one length, then one-token steps: what padding left is never seen."""
    tokens, position_ids = some_inputs(1)
    prompt, steps = np.array([3, 6, 5]), 4
    padded = np.where(np.arange(6) < prompt[:, None], tokens[:, :6], 0)
    mask = memory_mask(np.zeros(1, int), 6, SLOTS, prefix_length=prompt)
    cache = empty_cache(CONFIG, BATCH, SLOTS)
    logits, cache = extend(padded, position_ids[:, :, :6], cache, 0, mask)
    expected = whole(MODEL, some_params(), tokens, position_ids, prompt)
    rows = np.arange(BATCH)
    for length in range(steps + 1):
        last = prompt - 1 + length
        shown = logits[rows, prompt - 1] if length == 0 else logits[:, 0]
        np.testing.assert_allclose(shown, expected[rows, last], atol=TOLERANCE, rtol=0)
        place = last + 1
        inputs = tokens[rows, place, None], position_ids[rows, :, place][..., None]
        mask = memory_mask(place, 1, SLOTS)
        logits, cache = extend(*inputs, cache, place, mask)


def test_every_step_is_the_same_program():
    (tokens, position_ids), params = some_inputs(2), decoding_params()
    traced = []

    @jax.jit
    def step(cache, start, tokens, position_ids):
        traced.append(start)
        mask = memory_mask(start, 1, SLOTS)
        inputs = (tokens, position_ids, cache, start, mask)
        return DECODING.apply({"params": params}, *inputs, method="extend")

    cache = jax.jit(lambda: empty_cache(CONFIG, BATCH, SLOTS))()
    for place in range(6):
        inputs = tokens[:, place, None], position_ids[:, :, place, None]
        _, cache = step(cache, jnp.full(BATCH, place), *inputs)
    assert len(traced) == 1


def test_one_start_for_all_rows_may_be_a_number():
    tokens, position_ids = some_inputs(3)
    cache = empty_cache(CONFIG, BATCH, SLOTS)
    mask = memory_mask(np.full(1, 2), LENGTH, SLOTS, first_slot=2)
    number = extend(tokens, position_ids, cache, 2, mask)
    vector = extend(tokens, position_ids, cache, np.full(BATCH, 2), mask)
    jax.tree.map(np.testing.assert_array_equal, number, vector)
    for layer in number[1]:
        slots = np.asarray(layer.key[0])  # [B, H, 64, K]
        assert np.all(slots[:, :, :2] == 0) and np.all(slots[:, :, 14:] == 0)
        assert np.all(slots[:, :, 2:14] != 0)


def test_what_does_not_fit_is_dropped():
    tokens, position_ids = some_inputs(4)
    cache = jax.tree.map(jnp.ones_like, empty_cache(CONFIG, BATCH, SLOTS))
    start = np.array([SLOTS, SLOTS - 1, SLOTS - 2])
    inputs = tokens[:, :2], position_ids[:, :, :2]
    _, new = extend(*inputs, cache, start, memory_mask(start, 2, SLOTS))
    written = np.any(np.asarray([layer.key[0] for layer in new]) != 1, axis=(0, 2, 4))
    np.testing.assert_array_equal(written, np.arange(SLOTS) >= start[:, None])


@given(
    start=st.lists(st.integers(0, 9), min_size=1, max_size=3),
    length=st.integers(1, 4),
    prefix=st.integers(0, 4),
    kept=st.integers(0, 9),
)
@settings(deadline=None, max_examples=40)
def test_the_memory_is_seen_up_to_its_bound(start, length, prefix, kept):
    first = np.array(start) - kept
    mask = memory_mask(np.array(start), length, 14, prefix_length=prefix, first_slot=first)
    expected = [
        [
            [[s - kept <= j and (j < s or j - s <= i or j - s < prefix) for j in range(14)]
             for i in range(length)]
        ]
        for s in start
    ]  # fmt: skip
    np.testing.assert_array_equal(mask, expected)


@given(prefix=st.lists(st.integers(0, 8), min_size=1, max_size=3))
@settings(deadline=None, max_examples=20)
def test_without_memory_the_mask_is_that_of_a_whole_sequence(prefix):
    whole_mask = prefix_mask(jnp.array(prefix), 8)
    np.testing.assert_array_equal(
        memory_mask(np.zeros(1, int), 8, 8, prefix_length=np.array(prefix)), whole_mask
    )


def test_a_step_writes_into_the_cache_that_it_is_given():
    num_slots, config = 4096, dataclasses.replace(CONFIG, num_layers=8)
    model = DecodingGLM(config)
    cache = jax.eval_shape(lambda: empty_cache(config, BATCH, num_slots))

    def step(params, cache, tokens, position_ids, start):
        inputs = (tokens, position_ids, cache, start, memory_mask(start, 1, num_slots))
        return model.apply({"params": params}, *inputs, method="extend")

    inputs = [jax.ShapeDtypeStruct(shape, jnp.int32) for shape in ((3, 1), (3, 2, 1), (3,))]
    whole_inputs = [jax.ShapeDtypeStruct(array.shape, jnp.int32) for array in some_inputs(0)]
    initial = jax.eval_shape(GLM(config).init, jax.random.key(0), *whole_inputs, inputs[2])
    params = jax.eval_shape(by_layer, nn.unbox(initial)["params"])
    program = jax.jit(step, donate_argnums=1).lower(params, cache, *inputs).compile()
    memory: Any = program.memory_analysis()
    size = sum(array.size * array.dtype.itemsize for array in jax.tree.leaves(cache))
    assert memory.alias_size_in_bytes >= size
    assert memory.temp_size_in_bytes < size / 8


@given(seed=st.integers(0, 1000), prompt=st.integers(1, 9))
@settings(max_examples=5)
def test_a_text_read_into_some_rows_goes_on_as_one_pass(seed, prompt):
    tokens, position_ids = some_inputs(seed)
    expected = whole(MODEL, some_params(), tokens[:1], position_ids[:1], np.array([prompt]))
    padding = [(0, 0), (0, SLOTS - LENGTH)]
    inputs = np.pad(tokens[:1], padding), np.pad(position_ids[:1], [(0, 0), *padding])
    logits, text = read(*inputs, np.array([prompt]))
    np.testing.assert_allclose(logits[:, :prompt], expected[:, :prompt], atol=TOLERANCE, rtol=0)

    other = jax.tree.map(jnp.ones_like, empty_cache(CONFIG, BATCH, 2 * SLOTS))
    cache = put_prompt(other, text, jnp.array([True, False, True]))
    for layer in cache:
        assert np.all(layer.key[:, 1] == 1) and np.all(layer.key[1:] == 1)
    two = jax.tree.map(lambda array: jnp.concatenate([2 * jnp.ones_like(array), array], 1), text)
    cache = put_prompts(cache, two, jnp.array([-1, 1, 0]))
    for layer in cache:
        assert np.all(layer.key[0, 2] == 2) and np.all(layer.key[1:] == 1)
    cache = put_prompts(cache, two, jnp.array([-1, -1, 1]))
    for place in range(prompt, LENGTH):
        rows = np.repeat(tokens[:1, place, None], BATCH, 0)
        positions = np.repeat(position_ids[:1, :, place, None], BATCH, 0)
        start = np.full(BATCH, place)
        logits, cache = extend(rows, positions, cache, start, memory_mask(start, 1, 2 * SLOTS))
        np.testing.assert_allclose(
            logits[:, 0], np.repeat(expected[:, place], BATCH, 0), atol=TOLERANCE, rtol=0
        )


def test_the_layers_apart_are_the_same_network():
    tokens, position_ids = some_inputs(5)
    inputs = (tokens, position_ids, np.array([3, 0, 12]))
    expected = whole(MODEL, some_params(), *inputs)
    found = whole(DECODING, decoding_params(), *inputs)
    np.testing.assert_allclose(found, expected, atol=TOLERANCE, rtol=0)
    hidden = found[:, 0, :16]
    last, some = (
        np.asarray(DECODING.apply({"params": decoding_params()}, hidden, method=method))
        for method in ("last_logits", "logits")
    )
    np.testing.assert_allclose(last, some, rtol=1e-5, atol=TOLERANCE)


def test_the_cache_is_spread_over_devices_and_stays_where_it_is(run_program):
    *found, kernels = json.loads(run_program(Path(__file__).with_name("sharded_decode.py")))
    # Examples over four devices, heads over two.
    for layout, part in zip(found, ([1, 2, 2, 64, 8], [1, 2, 1, 64, 16]), strict=True):
        assert layout["difference"] < TOLERANCE
        assert layout["cache_part"] == part
        assert layout["moved"] == []
    assert kernels["kernels"] < TOLERANCE


def stored(pages: jnp.ndarray, layout: CacheLayout) -> jnp.ndarray:
    """Pages of 64 slots [P, B, H, 64, K] in another layout."""
    batch, size = pages.shape[1], pages.shape[-1]
    by_slot = pages.transpose(1, 0, 3, 2, 4)  # [B, P, 64, H, K]
    split = by_slot.reshape(
        batch,
        -1,
        layout.page_size,
        pages.shape[2] // layout.heads_of_row,
        layout.heads_of_row * size,
    )
    return split.transpose(1, 0, 3, 2, 4)


jitted_attention = jax.jit(attend_at_least, static_argnums=0)


@settings(max_examples=20)
@given(
    seed=st.integers(0, 2**32 - 1),
    length=st.sampled_from([1, 3, 8]),
    num_pages=st.integers(1, 6),
    with_prefix=st.booleans(),
)
def test_the_layout_of_a_cache_changes_nothing(seed, length, num_pages, with_prefix):
    draw = np.random.default_rng(seed)
    shape = (6, BATCH, 6, PAGE_SIZE, 8)
    arrays = [jnp.asarray(draw.normal(size=shape), jnp.float32) for _ in range(2)]
    query = jnp.asarray(3 * draw.normal(size=(BATCH, length, 6, 8)), jnp.float32)
    # Every query sees some slots of the pages in use, and none of the others.
    visible = draw.random((BATCH, 1, length, 6 * PAGE_SIZE)) < 0.3
    visible[..., 0] = True
    visible[..., num_pages * PAGE_SIZE :] = False
    prefix = None
    if with_prefix:
        values = (jnp.asarray(draw.normal(size=(1, 5, 6, 8)), jnp.float32) for _ in range(2))
        prefix = PrefixKeyValue(*values)
    inputs = (jnp.asarray(visible), slots_in_use(jnp.asarray(visible)), prefix)
    expected = attend_pages(query, LayerCache(*arrays), *inputs)
    for layout in (CacheLayout(), CacheLayout(128, 2), CacheLayout(192, 3), CacheLayout(384, 6)):
        cache = LayerCache(*(stored(array, layout) for array in arrays))
        found = jitted_attention(8, query, cache, *inputs)
        assert found.shape == expected.shape
        np.testing.assert_allclose(found, expected, atol=TOLERANCE)


def test_tpus_have_one_page_with_rows_of_all_heads_of_a_device():
    found = [cache_layout("tpu", 4096, 32, shards) for shards in (1, 4)]
    assert found == [CacheLayout(4096, 32), CacheLayout(4096, 8)]
    assert cache_layout("tpu", 1024, 18, 4) == CacheLayout(1024, 18)
    assert cache_layout("cuda", 2048, 32, 4) == CacheLayout(1024, 1)
    assert cache_layout("cpu", 4096, 32, 4) == CacheLayout(64, 1)


@pytest.mark.parametrize("layout", [CacheLayout(), CacheLayout(128, 1), CacheLayout(256, 2)])
def test_texts_read_and_continued_in_every_layout(layout):
    tokens, position_ids = some_inputs(6)
    prompt, slots, padded = 5, 4 * SLOTS, 3 * SLOTS
    expected = whole(MODEL, some_params(), tokens, position_ids, np.full(BATCH, prompt))
    padding = [(0, 0), (0, padded - LENGTH)]
    inputs = np.pad(tokens, padding), np.pad(position_ids, [(0, 0), *padding])
    _, texts = read(*inputs, np.full(BATCH, prompt))
    cache = put_prompts(empty_cache(CONFIG, BATCH, slots, layout), texts, jnp.arange(BATCH))
    for layer, text in zip(cache, texts, strict=True):
        pages = jnp.pad(text.key, [(0, 1), *[(0, 0)] * 4])
        np.testing.assert_array_equal(layer.key, stored(pages, layout))
    for first, last in ((prompt, prompt + 1), (prompt + 1, prompt + 3), (prompt + 3, LENGTH)):
        start = np.full(BATCH, first)
        pieces = tokens[:, first:last], position_ids[..., first:last]
        mask = memory_mask(start, last - first, slots)
        logits, cache = extend(*pieces, cache, start, mask)
        np.testing.assert_allclose(logits, expected[:, first:last], atol=TOLERANCE, rtol=0)
