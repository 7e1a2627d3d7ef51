"""Windows of a fixed pattern cover a stream exactly and hold every objective in its share."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from glm_jax.data.blanks.config import BlankConfig, Objective
from glm_jax.data.order.epochs import SLOTS, Kind, Tiling, kinds_of

shares = st.lists(st.floats(0, 1, allow_subnormal=False), min_size=3, max_size=3).filter(
    lambda values: sum(values) > 1e-3
)


@st.composite
def mixtures(draw):
    token, sentence, document = draw(shares)
    return BlankConfig(
        token=token,
        sentence=sentence,
        document=document,
        single_span_probability=draw(st.sampled_from([0.0, 0.02, 0.1, 1 / 3, 1.0])),
        masked_lm=draw(st.booleans()),
    )


@given(mixtures(), st.sampled_from([16, 32, 128, 512]), st.integers(0, 30_000))
def test_windows_follow_each_other_to_the_end_of_the_stream(blanks, length, more):
    kinds = kinds_of(blanks, length)
    num_tokens = length + more
    tiling = Tiling(kinds, num_tokens)
    windows = tf.range(tiling.num_windows, dtype=tf.int64)
    start, size = (values.numpy() for values in tiling.bounds(windows))
    np.testing.assert_array_equal(start, np.cumsum(size) - size)
    assert start[-1] + size[-1] == num_tokens
    # Each window and the ENC in front of it fit into the text that its kind may have.
    uniform = np.random.default_rng(more).random(tiling.num_chapters)
    kind = tiling.kind(windows, tf.constant(uniform[windows.numpy() // SLOTS])).numpy()
    fits = np.array([kind.text_length for kind in kinds])[kind]
    assert np.all(size < fits) and np.all(size >= (fits.min() - 1) // 2)


@given(mixtures(), st.integers(0, 1000))
def test_every_chapter_has_all_kinds_in_their_shares(blanks, seed):
    kinds = kinds_of(blanks, 64)
    tiling = Tiling(kinds, 64 * SLOTS * 50)
    windows = np.arange(40 * SLOTS)
    uniform = np.random.default_rng(seed).random(40)
    kind = tiling.kind(tf.constant(windows), tf.constant(uniform[windows // SLOTS])).numpy()
    for number, expected in enumerate(SLOTS * np.array([kind.share for kind in kinds])):
        count = (kind == number).reshape(40, SLOTS).sum(axis=1)
        assert np.all(count >= np.floor(expected + 1e-9)) and np.all(count < expected + 1)


def test_what_does_not_come_out_even_comes_in_its_share_over_many_chapters():
    blanks = BlankConfig(token=1, sentence=1, document=1, single_span_probability=0.017)
    kinds = kinds_of(blanks, 64)
    chapters = 4000
    tiling = Tiling(kinds, 64 * SLOTS * (chapters + 1))
    windows = np.arange(chapters * SLOTS)
    # Evenly spread numbers give what is expected of random ones.
    uniform = (np.arange(chapters) + 0.5) / chapters
    kind = tiling.kind(tf.constant(windows), tf.constant(uniform[windows // SLOTS])).numpy()
    found = np.bincount(kind, minlength=4) / len(windows)
    np.testing.assert_allclose(found, [kind.share for kind in kinds], atol=1 / SLOTS / chapters)


def test_kinds():
    blanks = BlankConfig(token=0.5, sentence=0.3, document=0.2, single_span_probability=0.1)
    found = {kind[:2]: kind.share for kind in kinds_of(blanks, 128)}
    assert found == {
        (Objective.TOKEN, False): pytest.approx(0.45),
        (Objective.SENTENCE, False): pytest.approx(0.27),
        (Objective.DOCUMENT, False): pytest.approx(0.18),
        (Objective.TOKEN, True): pytest.approx(0.1),
    }
    lengths = {kind[:2]: kind.text_length for kind in kinds_of(blanks, 128)}
    assert lengths[Objective.TOKEN, True] == lengths[Objective.DOCUMENT, False] == 126
    assert lengths[Objective.TOKEN, False] < lengths[Objective.SENTENCE, False] < 126


def test_a_share_of_single_spans_without_token_examples_is_of_ordinary_ones():
    kinds = kinds_of(BlankConfig(token=0, sentence=1, single_span_probability=0.25), 128)
    assert {kind[:2] for kind in kinds} == {(Objective.SENTENCE, False)}
    assert sum(kind.share for kind in kinds) == pytest.approx(1)


def test_streams_longer_than_32_bits():
    tiling = Tiling((Kind(Objective.TOKEN, False, 1.0, 480),), 10**13)
    windows = tf.constant([0, tiling.num_windows // 2, tiling.num_windows - 1])
    start, size = (values.numpy() for values in tiling.bounds(windows))
    assert start[0] == 0 and start[2] + size[2] == 10**13
    assert abs(start[1] - 5 * 10**12) < 480
    np.testing.assert_allclose(size, 479, atol=1)
