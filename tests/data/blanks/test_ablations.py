"""Whole batches of every setting: their text can be read back, and the setting shows."""

import io

import numpy as np
import pytest
import tensorflow as tf
from rich.console import Console

from glm_jax.data.batches.batch import make_batch
from glm_jax.data.blanks.config import BlankConfig, Objective
from glm_jax.data.blanks.objectives import draw_objectives, expected_text_length
from glm_jax.data.inspect.parts import find_blocks
from glm_jax.data.inspect.picture import example_figure
from glm_jax.data.inspect.terminal import render_example

ROWS, WIDTH, LENGTH = 120, 112, 128
MIXED = {"token": 0.5, "sentence": 0.25, "document": 0.25}


@pytest.fixture(scope="module")
def sentinel_special(special):
    pairs = {f"{name}{i}": 1009 + 2 * i + (name == "sop")
             for i in range(1, 7) for name in ("MASK", "sop")}  # fmt: skip
    return {**special, **pairs}


@pytest.fixture(scope="module")
def texts(special):
    """Rows of different lengths, about half of them with two documents; no token twice."""
    random = np.random.default_rng(2)
    text = np.array([random.permutation(np.arange(10, 900))[:WIDTH] for _ in range(ROWS)])
    text[:, 0] = special["ENC"]
    border = random.integers(10, WIDTH - 10, ROWS // 2)
    text[np.arange(ROWS // 2), border] = special["eos"]
    text[np.arange(ROWS // 2), border + 1] = special["ENC"]
    return text.astype(np.int32), random.integers(60, WIDTH + 1, ROWS).astype(np.int32)


@pytest.fixture(scope="module")
def make(texts, sentinel_special, sentence_end):
    def make(first=0, **changes):
        config = BlankConfig(**{**MIXED, **changes})
        example = tf.range(first, first + ROWS, dtype=tf.int64)
        objective, single = draw_objectives(example, config, 4)
        batch = make_batch(
            tf.constant(texts[0]), tf.constant(texts[1]), example, objective, single,
            config=config, special=sentinel_special, sentence_end=sentence_end,
            sequence_length=LENGTH, seed=4,
        )  # fmt: skip
        return {name: values.numpy() for name, values in batch.items()}

    return make


@pytest.fixture(scope="module")
def plain(make):
    return make()


def examples_of(batch):
    for row in range(ROWS):
        yield row, {name: values[row] for name, values in batch.items()}


def read_back(example, special):
    """The text of an example, its blanks filled by the targets of their blocks."""
    prefix, blocks = int(example["prefix_length"]), find_blocks(example, special)
    fills = {block.mask: example["targets"][block.start : block.stop] for block in blocks}
    text = []
    for place, token in enumerate(example["targets"][:prefix].tolist()):
        if place in fills:
            text += [t for t in fills[place].tolist() if t != special["eop"]]
        else:
            text.append(token)
    return text


SETTINGS = [
    {},
    {"task_masks": True, "block_mask_probability": 0.2},
    {"shuffle_blocks": False},
    {"sentinels": True},
    {"sentinels": True, "random_position": True},
    {"block_positions": False},
    {"random_position": True},
    {"context_mask_ratio": 0.05},
    {"sentinels": True, "task_masks": True, "block_positions": False, "context_mask_ratio": 0.1},
    {"masked_lm": True, "sentinels": True},
    {"single_span_probability": 0.5},
]


@pytest.mark.parametrize("changes", SETTINGS, ids=lambda changes: "-".join(changes) or "plain")
def test_text_can_be_read_back(make, texts, sentinel_special, changes):
    text, lengths = texts
    batch = make(**changes)
    assert set(batch["objective"]) == {0, 1, 2}
    for row, example in examples_of(batch):
        back = read_back(example, sentinel_special)
        assert back == text[row, : lengths[row]].tolist()
        assert len(find_blocks(example, sentinel_special)) > 0 or changes.get("masked_lm")


class Names:
    """The part of a tokenizer that names tokens."""

    def __init__(self, special):
        self._special = special

    @property
    def special(self):
        return self._special

    def piece(self, id: int) -> str:
        return str(id)


@pytest.mark.parametrize("changes", SETTINGS, ids=lambda changes: "-".join(changes) or "plain")
def test_every_setting_can_be_shown(make, sentinel_special, changes):
    batch, stream = make(**changes), io.StringIO()
    for row, example in examples_of(batch):
        if row % 10 == 0:
            Console(file=stream, width=100).print(render_example(example, Names(sentinel_special)))
    assert "Part A" in stream.getvalue()
    if "masked_lm" in changes:
        assert f"{sentinel_special['MASK']}→" in stream.getvalue()
    example = next(example for _, example in examples_of(batch))
    assert example_figure(example, Names(sentinel_special)).axes


def test_padding_is_zero(plain):
    used = np.array([np.max(np.flatnonzero(row), initial=0) + 1 for row in plain["targets"]])
    for row in range(ROWS):
        assert not plain["position_ids"][row, :, used[row] :].any()
        assert not plain["loss_mask"][row, used[row] :].any()
        assert not plain["tokens"][row, used[row] :].any()


def test_unshuffled_blocks_follow_the_text(make, plain, sentinel_special):
    def in_order(batch):
        masks = [[b.mask for b in find_blocks(x, sentinel_special)] for _, x in examples_of(batch)]
        return [found == sorted(found) for found in masks]

    assert all(in_order(make(shuffle_blocks=False)))
    assert not all(in_order(plain))


def test_sentinels_tell_blocks_apart(make, sentinel_special):
    batch = make(sentinels=True)
    for _, example in examples_of(batch):
        blocks = find_blocks(example, sentinel_special)
        assert len(blocks) <= 7  # no more than there are sentinels
        for number, block in enumerate(blocks):
            suffix = str(number or "")
            assert example["tokens"][block.start] == sentinel_special[f"sop{suffix}"]
            assert example["tokens"][block.mask] == sentinel_special[f"MASK{suffix}"]
        is_tail = not (example["targets"] == sentinel_special["eop"]).any()
        part_b = example["position_ids"][0, example["position_ids"][1] > 0]
        assert (part_b == (example["prefix_length"] - 1 if is_tail else LENGTH)).all()


def test_one_dimensional_positions(make, plain):
    flat = make(block_positions=False)
    np.testing.assert_array_equal(flat["position_ids"][:, 0], plain["position_ids"][:, 0])
    expected = np.minimum(plain["position_ids"][:, 1], 1)
    np.testing.assert_array_equal(flat["position_ids"][:, 1], expected)


def test_random_positions_move_examples_as_a_whole(make, plain, sentinel_special):
    moved = make(random_position=True)
    np.testing.assert_array_equal(moved["tokens"], plain["tokens"])
    shift = moved["position_ids"][:, 0] - plain["position_ids"][:, 0]
    used = plain["position_ids"].sum(axis=1) > 0
    used[:, 0] = True
    share = []
    for row in range(ROWS):
        (first,) = set(shift[row, used[row]])
        assert not shift[row, ~used[row]].any()
        room = LENGTH - plain["prefix_length"][row]
        assert 0 <= first <= room
        if (plain["targets"][row] == sentinel_special["eop"]).any():
            share.append(first / (room + 1))
        else:
            assert first == 0
    assert 0.35 < np.mean(share) < 0.65


def test_contexts_are_hidden_beside_blanks(make, plain, texts, sentinel_special):
    hidden = make(context_mask_ratio=0.05)
    np.testing.assert_array_equal(hidden["targets"], plain["targets"])
    changed = hidden["tokens"] != plain["tokens"]
    assert (hidden["tokens"][changed] == sentinel_special["dBLOCK"]).all()
    assert not (changed & (plain["loss_mask"] > 0)).any()
    for row, example in examples_of(plain):
        is_tail = not (example["targets"] == sentinel_special["eop"]).any()
        borders = [block.mask for block in find_blocks(example, sentinel_special)]
        borders.append(int(example["prefix_length"]))
        places = np.flatnonzero(changed[row])
        assert len(places) <= (0 if is_tail else int(0.05 * texts[1][row]))
        assert all(min(abs(place - border) for border in borders) <= 3 for place in places)
    assert changed.sum() > 2 * ROWS


def test_masked_tokens_are_predicted_in_place(make, plain, texts, sentinel_special):
    batch = make(masked_lm=True)
    for row, example in examples_of(batch):
        if example["objective"] != Objective.TOKEN:
            for name in plain:
                np.testing.assert_array_equal(example[name], plain[name][row])
            continue
        length = texts[1][row]
        assert example["prefix_length"] == length
        masked = example["tokens"] == sentinel_special["MASK"]
        np.testing.assert_array_equal(example["loss_mask"] > 0, masked)
        assert masked.sum() >= int(0.15 * length)
        np.testing.assert_array_equal(example["position_ids"][0, :length], np.arange(length))
        assert not example["position_ids"][1].any()


def test_short_sequences_are_pieces_between_sentence_ends(
    make, texts, sentinel_special, sentence_end
):
    whole, lengths = texts
    sizes = []
    for row, example in examples_of(make(short_sequence_probability=1.0)):
        text = read_back(example, sentinel_special)
        assert text[0] == sentinel_special["ENC"]
        sizes.append(len(text))
        tokens = whole[row, : lengths[row]].tolist()
        start = tokens.index(text[1])
        assert tokens[start : start + len(text) - 1] == text[1:]
        before = tokens[start - 1]
        assert sentence_end[before] or before in (sentinel_special["ENC"], sentinel_special["eos"])
        ends = [sentence_end[token] or token == sentinel_special["eos"] for token in text[1:]]
        # A sentence end that would leave less than half of a piece doesn't end it.
        late = ends[len(ends) // 2 :]
        assert ends[-1] or not any(late) or start + len(text) - 1 == len(tokens)
    assert np.mean(np.array(sizes) < lengths) > 0.5
    assert min(sizes) < 32 and max(sizes) > 80


def test_share_of_short_sequences(make, plain, texts, sentinel_special):
    batch = make(short_sequence_probability=0.3)
    same = [(batch["tokens"][row] == plain["tokens"][row]).all() for row in range(ROWS)]
    assert 0.7 - 0.13 < np.mean(same) < 0.95


def test_single_spans_are_of_the_first_objective(make):
    batch = make(single_span_probability=1.0)
    assert set(batch["objective"]) == {Objective.TOKEN}
    assert (batch["position_ids"][:, 1] == 1).sum(axis=1).tolist() == [1] * ROWS
    # As the original does where there are no token examples.
    assert set(make(single_span_probability=1.0, token=0)["objective"]) == {Objective.SENTENCE}


@pytest.mark.parametrize("objective", [Objective.TOKEN, Objective.DOCUMENT])
def test_expected_text_lengths_nearly_always_keep_all_spans(
    sentinel_special, sentence_end, objective
):
    is_token = objective == Objective.TOKEN
    config = BlankConfig(token=float(is_token), document=float(not is_token))
    length = expected_text_length(objective, config, 512)
    text = tf.constant([[sentinel_special["ENC"], *range(30, 30 + length - 1)]] * 2000, tf.int32)
    example = tf.range(2000, dtype=tf.int64)
    batch = make_batch(
        text, tf.fill([2000], length), example, *draw_objectives(example, config, 0),
        config=config, special=sentinel_special, sentence_end=sentence_end,
        sequence_length=512, seed=0,
    )  # fmt: skip
    part_b = batch["position_ids"].numpy()[:, 1] > 0
    used = batch["prefix_length"].numpy() + part_b.sum(axis=1)
    assert used.mean() / 512 > 0.97
    blocks = (batch["position_ids"].numpy()[:, 1] == 1).sum(axis=1)
    if objective == Objective.TOKEN:
        covered = batch["loss_mask"].numpy().sum(axis=1) - blocks
        assert (covered >= int(0.15 * length)).mean() > 0.95
    else:
        assert (blocks == 1).all()
