"""Batches are a pure function of (seed, step), and hold rows of like length."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest

from glm_jax.errors import UsageError
from glm_jax.finetune import encoded
from glm_jax.finetune.batches import (
    TrainingBatches,
    evaluation_batches,
    made_ahead,
    training_batches,
)
from glm_jax.finetune.encoded import encode_examples, length_buckets
from glm_jax.finetune.order import random_order, window_batches
from glm_jax.tasks import Example, encode_example, find_task
from tests.finetune.rows import encoded_letters, letters, letters_task
from tests.serve.tiny_checkpoint import byte_tokenizer

# Tokens of a row of `letters` in addition to its text: ENC, " is", mask, ".", eos, sop.
MORE = 8
ORDERS = ([1, 2, 0, 3, 5, 4], [3, 0, 5, 4, 1, 2])


def test_orders_stay_what_they_are_so_that_old_runs_can_be_resumed():
    assert random_order(6, 1234, 0).tolist() == ORDERS[0]
    assert random_order(6, 1234, 1).tolist() == ORDERS[1]


def test_a_window_is_sorted_by_length_and_its_batches_are_shuffled():
    rows, lengths = np.asarray([4, 2, 0, 1, 3]), np.asarray([30, 10, 10, 20, 5])
    # Sorted by length: 3 (5), 2 (10), 0 (10), 1 (20), 4 (30); rows of one length stay in order.
    batches = [batch.tolist() for batch in window_batches(rows, lengths, 2, 7)]
    expected = [[3, 2], [0, 1], [4]]
    assert sorted(batches) == sorted(expected)
    assert batches == [expected[number] for number in random_order(3, 7)]


def test_every_epoch_has_every_row_once_in_an_order_of_its_own():
    examples = encoded_letters(np.random.default_rng(0).integers(1, 100, 45))
    batches = TrainingBatches(examples, 4, 1, window=3)
    epochs = [[batches.indices(step) for step in range(12 * e, 12 * e + 12)] for e in range(2)]
    for epoch in epochs:
        assert sorted(np.concatenate(epoch).tolist()) == list(range(45))
        assert sorted(len(indices) for indices in epoch) == [1] + [4] * 11
    first, second = (np.concatenate(epoch).tolist() for epoch in epochs)
    assert first != second
    other = TrainingBatches(examples, 4, 2, window=3)
    assert first != np.concatenate([other.indices(step) for step in range(12)]).tolist()


def test_a_batch_depends_on_its_step_only():
    lengths = np.random.default_rng(0).integers(1, 100, 45)
    whole = islice(training_batches(TrainingBatches(encoded_letters(lengths), 4, 1), 0, 3), 30)
    late = training_batches(TrainingBatches(encoded_letters(lengths), 4, 1), 17)
    for expected, found in zip(list(whole)[17:], late, strict=False):
        assert expected.keys() == found.keys()
        assert all(np.array_equal(expected[name], found[name]) for name in expected)


def test_rows_of_like_length_need_less_padding():
    examples = encoded_letters(np.random.default_rng(0).integers(1, 120, 256))
    shares = [TrainingBatches(examples, 8, 1, window=window).padding_share() for window in (1, 16)]
    used = np.asarray([examples.length(row) for row in range(256)])
    buckets = np.asarray([next(b for b in length_buckets(128) if b >= u) for u in used])
    floor = 1 - used.sum() / buckets.sum()
    assert shares[0] > 0.4
    assert floor <= shares[1] < floor + 0.06


def test_rows_are_padded_to_a_bucket_and_batches_filled_up():
    examples = encoded_letters([20, 3])
    assert length_buckets(128) == (32, 64, 96, 128)
    assert length_buckets(24) == (24,)
    batch = examples.batch(np.asarray([1, 0]), 3)
    assert batch["tokens"].shape == (3, 32) and batch["position_ids"].shape == (3, 2, 32)
    assert batch["weight"].tolist() == [1, 1, 0]
    assert batch["label"].tolist() == [1, 0, 1]
    task, tokenizer = letters_task(), byte_tokenizer()
    for row, example in zip(
        batch["tokens"], (letters([20, 3])[1], letters([20, 3])[0]), strict=False
    ):
        expected = encode_example(task, example, tokenizer, sequence_length=128)["tokens"]
        assert row.tolist() == expected[:32].tolist()
        assert (expected[32:] == tokenizer.special["eos"]).all()
    # One position after sop is there for the pool "start".
    assert [examples.length(row) for row in (0, 1)] == [20 + MORE + 1, 3 + MORE + 1]


def test_only_rows_that_may_not_fit_are_encoded_in_advance(monkeypatch):
    encoded_ones: list = []

    def counted(task, example, *arguments, **options):
        encoded_ones.append(example.idx)
        return encode_example(task, example, *arguments, **options)

    monkeypatch.setattr(encoded, "encode_example", counted)
    task = letters_task("{text!} is[MASK].")
    settings = {"sequence_length": 32, "options": {}}
    encode_examples(task, letters([5, 6, 20, 7]), byte_tokenizer(), **settings)
    assert encoded_ones == [0, 2]  # the first one, and one that may be too long
    with pytest.raises(UsageError, match=r"example train-1 of task custom: .* length of 3[56]"):
        encode_examples(task, letters([5, 27]), byte_tokenizer(), **settings)


def test_rows_that_are_not_kept_are_encoded_again(monkeypatch):
    lengths = range(1, 40)
    expected = [batch for _, batch in evaluation_batches(encoded_letters(lengths), 4)]
    monkeypatch.setattr(encoded, "MAX_KEPT_BYTES", 3000)
    examples = encoded_letters(lengths)
    for _ in range(2):
        found = [batch for _, batch in evaluation_batches(examples, 4)]
        for one, other in zip(expected, found, strict=True):
            assert all(np.array_equal(one[name], other[name]) for name in one)
    assert 0 < examples.num_kept < 10


def test_an_ensemble_asks_all_examples_by_one_pattern_after_the_other():
    task, examples, tokenizer = (
        letters_task("{text}[MASK]", "[MASK]{text}"),
        letters([3, 4, 5]),
        None,
    )
    tokenizer = byte_tokenizer()
    rows = encode_examples(
        task, examples, tokenizer, sequence_length=32, patterns=(1, 0), options={}
    )
    assert len(rows) == 6 and rows.num_examples == 3
    for index, (pattern, number) in enumerate([(1, 0), (1, 1), (1, 2), (0, 0), (0, 1), (0, 2)]):
        expected = encode_example(
            task, examples[number], tokenizer, sequence_length=32, pattern=pattern
        )
        assert np.array_equal(rows.batch(np.asarray([index]), 1)["tokens"][0], expected["tokens"])


def record(number: int, candidates: list[str]) -> Example:
    meta = {"candidates": candidates, "answers": candidates[:1]}
    return Example(
        f"dev-{number}", "a b c", "x @placeholder y", "0", number, len(candidates), meta=meta
    )


def test_choices_are_filled_up_to_those_of_the_split():
    examples = [record(0, ["ab", "c"]), record(1, ["d", "efg", "h"])]
    rows = encode_examples(
        find_task("record"), examples, byte_tokenizer(), sequence_length=32, options={}
    )
    assert rows.num_choices == 3 and rows.answer_length == 5  # a space, "efg" and eop
    batch = rows.batch(np.asarray([0]), 1)
    assert batch["tokens"].shape == (1, 3, 32)
    assert batch["choice_mask"].tolist() == [[1, 1, 0]]
    assert np.array_equal(batch["tokens"][0, 2], batch["tokens"][0, 0])


def test_segments_of_answers_have_rows_of_their_own():
    examples = [record(0, ["ab", "c"]), record(1, ["d", "efg", "h"])]
    rows = encode_examples(
        find_task("record"),
        examples,
        byte_tokenizer(),
        sequence_length=32,
        options={"segment_length": 2},
    )
    # Tokens with space and eop: 4 and 3; 3, 5 and 3. In pieces of 2: 2 + 2 and 2 + 3 + 2.
    assert (rows.num_choices, rows.answer_length) == (3, 2)
    batch = rows.batch(np.asarray([0, 1]), 2)
    assert batch["segment_ids"].tolist() == [[0, 0, 1, 1, 0, 0, 0], [0, 0, 1, 1, 1, 2, 2]]
    assert batch["segment_mask"].tolist() == [[1, 1, 1, 1, 0, 0, 0], [1] * 7]
    assert batch["choice_mask"].tolist() == [[1, 1, 0], [1, 1, 1]]


def test_made_ahead_keeps_the_order_and_raises_where_something_went_wrong():
    def make(number: int) -> int:
        if number == 30:
            raise UsageError("row 30 is wrong")
        return number * number

    made = made_ahead(make, iter(range(50)), 3)
    assert list(islice(made, 30)) == [number * number for number in range(30)]
    with pytest.raises(UsageError, match="row 30 is wrong"):
        next(made)
