"""Part A and Part B of given spans, against recorded numbers and by reconstruction."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from glm_jax.data.blanks.ablations import near_blanks
from glm_jax.data.blanks.build import build_blanks
from tests.conftest import SHARED
from tests.data.blanks.recorded_blocks import (
    build_row,
    build_samples,
    places,
    recorded,
    samples_with_rows,
    settings_of,
    special_tokens,
)

RECORDED = settings_of(SHARED / "goldens" / "d_blocks")
FAILING = {"gpt_mixed_1d"}  # the original fails on all cases


@pytest.fixture(scope="module")
def folder(shared):
    return shared / "goldens" / "d_blocks"


def assert_recorded(built, expected, name):
    """Recorded positions may have the first row only: the second is 0 then."""
    if name == "position_ids" and np.ndim(expected) < np.ndim(built):
        expected = np.stack([expected, np.zeros_like(expected)], axis=-2)
    np.testing.assert_array_equal(built, expected, err_msg=name)


@pytest.mark.parametrize("setting", RECORDED)
def test_recorded_rows(folder, setting):
    options, cases = recorded(folder, setting)
    special = special_tokens(folder, options)
    assert cases or setting in FAILING
    for row in [row for case in cases for row in case["built"]]:
        built = build_row(row, options, special)
        for name in ("tokens", "targets", "loss_mask", "position_ids"):
            assert_recorded(built[name], row[name], name)
        assert built["prefix_length"] == row["sep"]


@pytest.mark.parametrize("setting", RECORDED)
def test_recorded_batches(folder, setting):
    """Samples of different lengths and kinds in one batch, the unidirectional ones among them."""
    options, cases = recorded(folder, setting)
    special = special_tokens(folder, options)
    for case in cases:
        batch = case["batch"]
        samples = list(samples_with_rows(case))
        built = build_samples(samples, options, special, np.shape(batch["text"])[-1])
        names = {"text": "tokens", "target": "targets", "loss_mask": "loss_mask",
                 "position_id": "position_ids", "attention_mask": "prefix_length"}  # fmt: skip
        for theirs, ours in names.items():
            assert_recorded(built[ours], np.array(batch[theirs]), ours)


def test_recorded_contexts_are_hidden_beside_blanks(folder):
    """What the original hid lies where we hide, and is as much."""
    hidden, near_tokens = 0, 0
    for setting in RECORDED:
        options, cases = recorded(folder, setting)
        if "context_mask_ratio" not in options:
            continue
        special = special_tokens(folder, options)
        for row in [row for case in cases for row in case["built"]]:
            chosen = places(row, "context")
            sample = {"text": row["sample_tokens"], "loss_mask": []}
            built = build_samples([(sample, row, 0)], options, special, len(row["tokens"]))
            tensors = {name: tf.constant(values) for name, values in built.items()}
            near = near_blanks(tensors, options["context_mask_range"]).numpy()[0]
            assert not (chosen & ~near).any()
            expected = int(options["context_mask_ratio"] * len(row["sample_tokens"]))
            assert chosen.sum() == min(expected, near.sum())
            hidden, near_tokens = hidden + chosen.sum(), near_tokens + near.sum()
    assert 0 < hidden < near_tokens


def test_recorded_first_positions_keep_part_a_in_range(folder):
    options, cases = recorded(folder, "bert_random_position")
    rows = [row for case in cases for row in case["built"]]
    bound = np.array([options["max_seq_length"] - row["sep"] + 1 for row in rows])
    first = np.array([row["position_bias"] for row in rows])
    assert (first < bound).all()
    assert (first / bound).max() > 0.8


def test_tail_does_not_learn_what_the_text_excludes(special):
    text = [[special["ENC"], 5, 6, special["eos"], special["ENC"], 7, 8]]
    built = build_blanks(
        text, [7], [[[2, 7]]], [1],
        mask_id=special["gMASK"], sop=special["sop"], eop=special["eop"], sequence_length=8,
        unidirectional=[True], text_loss_mask=np.not_equal(text, special["ENC"]),
    )  # fmt: skip
    assert built["targets"][0].numpy().tolist()[3:] == text[0][2:]
    assert built["tokens"][0].numpy().tolist()[3:] == [special["sop"], *text[0][2:-1]]
    assert built["loss_mask"][0].numpy().tolist() == [0, 0, 0, 1, 1, 0, 1, 1]


@st.composite
def blanked_texts(draw):
    """A text and non-overlapping spans of it (touching ones too) in any order."""
    lengths = draw(st.lists(st.tuples(st.integers(0, 4), st.integers(1, 5)), max_size=6))
    spans, place = [], 1
    for gap, length in lengths:
        spans.append((place + gap, place + gap + length))
        place += gap + length
    size = place + draw(st.integers(0, 5))
    return size, draw(st.permutations(spans))


@settings(deadline=None, max_examples=60)
@given(st.lists(blanked_texts(), min_size=1, max_size=4))
def test_part_b_with_its_positions_reconstructs_the_text(special, texts):
    width, most = max(size for size, _ in texts), max(len(spans) for _, spans in texts)
    text = 10 + np.arange(len(texts) * width, dtype=np.int32).reshape(len(texts), width)
    spans = np.zeros((len(texts), most, 2), np.int32)
    for i, (_, chosen) in enumerate(texts):
        spans[i, : len(chosen)] = np.array(chosen).reshape(-1, 2)
    built = build_blanks(
        text,
        [size for size, _ in texts],
        spans,
        [len(chosen) for _, chosen in texts],
        mask_id=special["MASK"],
        sop=special["sop"],
        eop=special["eop"],
        sequence_length=width + 2 * most + 3,
    )
    built = {name: values.numpy() for name, values in built.items()}
    for i, (size, chosen) in enumerate(texts):
        part_a = built["tokens"][i, : built["prefix_length"][i]]
        generated: dict[int, list[int]] = {}
        for place in np.flatnonzero(built["loss_mask"][i]):
            generated.setdefault(built["position_ids"][i, 0, place], []).append(
                int(built["targets"][i, place])
            )
        restored: list[int] = []
        for place, token in enumerate(part_a):
            if token == special["MASK"]:
                assert generated[place].pop() == special["eop"]
                restored += generated.pop(place)
            else:
                restored.append(int(token))
        assert restored == text[i, :size].tolist()
        assert generated == {}
        end = size + 2 * len(chosen)
        for name in ("tokens", "targets", "loss_mask"):
            assert not built[name][i, end:].any()
        assert not built["position_ids"][i, :, end:].any()
