"""Batches of the pretraining objective on a task's texts."""

from __future__ import annotations

import numpy as np
import pytest

from glm_jax.data.blanks.config import BlankConfig
from glm_jax.errors import UsageError
from glm_jax.finetune.batches import TrainingBatches
from glm_jax.finetune.language_model import is_language_model_batch
from glm_jax.finetune.priming import PrimingTexts
from glm_jax.tasks import Example, encode_priming_text, find_task
from tests.finetune.rows import encoded_letters, letters, letters_task
from tests.serve.tiny_checkpoint import byte_tokenizer

LENGTHS = [5, 9, 12, 20, 30, 44]


def priming(ratio: float, seed: int = 3, **blanks) -> PrimingTexts:
    return PrimingTexts(
        task=letters_task(),
        examples=letters(LENGTHS),
        tokenizer=byte_tokenizer(),
        sequence_length=128,
        patterns=(0,),
        multi_token=False,
        ratio=ratio,
        blanks=BlankConfig(**blanks),
        seed=seed,
    )


@pytest.mark.parametrize(
    "ratio", [0.25, *(pytest.param(r, marks=pytest.mark.slow) for r in (1.0, 3.0))]
)
def test_a_share_of_the_steps_is_due(ratio):
    """r / (1 + r) of 2,000 steps, within four standard deviations."""
    texts = priming(ratio)
    due = [texts.is_due(step) for step in range(2000)]
    share = ratio / (1 + ratio)
    assert abs(np.mean(due) - share) < 4 * np.sqrt(share * (1 - share) / 2000)
    assert due == [priming(ratio).is_due(step) for step in range(2000)]
    assert due != [priming(ratio, seed=4).is_due(step) for step in range(2000)]


def rebuilt(batch: dict, row: int, special) -> list[int]:
    """The text whose blanks a row has: every mask of Part A replaced by its block of Part B."""
    prefix = int(batch["prefix_length"][row])
    text = [[id] for id in batch["tokens"][row, :prefix].tolist()]
    for index in np.flatnonzero(batch["loss_mask"][row]):
        mask, target = int(batch["position_ids"][row, 0, index]), int(batch["targets"][row, index])
        if batch["tokens"][row, index] == special["sop"]:
            assert text[mask] == [special["MASK"]]
            text[mask] = []
        if target != special["eop"]:
            text[mask].append(target)
    return [id for ids in text for id in ids]


def test_rows_are_texts_of_the_task_with_blanks():
    texts, special = priming(1.0), byte_tokenizer().special
    expected = {tuple(texts.text(number)) for number in range(len(LENGTHS))}
    tokenizer, (first, *_) = byte_tokenizer(), letters(LENGTHS)
    assert texts.text(0) == [
        special["ENC"],
        *tokenizer.encode("xxxxx is"),
        *tokenizer.encode("n"),
        *tokenizer.encode("."),
        special["eos"],
    ]
    assert first.label == "bad"  # whose word is n
    seen = set()
    for step in range(8):
        batch = texts.batch(step, 4)
        assert is_language_model_batch(batch)
        assert batch["tokens"].shape[1] in (32, 64, 96)
        assert (batch["loss_mask"].sum(axis=1) >= 2).all()
        seen |= {tuple(rebuilt(batch, row, special)) for row in range(4)}
        again = priming(1.0).batch(step, 4)
        assert all(np.array_equal(batch[name], again[name]) for name in batch)
    assert seen <= expected and len(seen) == len(expected)  # drawn with replacement, in 32 rows


def test_a_priming_batch_takes_the_place_of_a_batch_of_the_task():
    examples, texts = encoded_letters(LENGTHS * 4), priming(1.0)
    plain = TrainingBatches(examples, 4, 3)
    mixed = TrainingBatches(examples, 4, 3, priming=texts)
    kinds = []
    for step in range(12):
        batch = mixed.at(step)
        kinds.append(is_language_model_batch(batch))
        expected = texts.batch(step, 4) if kinds[-1] else plain.at(step)
        assert all(np.array_equal(batch[name], expected[name]) for name in expected)
    assert kinds == [texts.is_due(step) for step in range(12)] and len(set(kinds)) == 2


def test_the_right_answer_fills_the_text():
    tokenizer = byte_tokenizer()
    meta = {"span1_text": "ab", "span2_text": "it", "span1_index": 0, "span2_index": 2}
    wsc = Example("train-0", "ab saw it", None, "True", 0, meta=meta | {"candidates": ["cd"]})
    ids = encode_priming_text("wsc", wsc, tokenizer, sequence_length=128)
    assert "refers to ab." in tokenizer.decode(ids)
    # Words of several tokens fill the text with all of them.
    ids = encode_priming_text(
        "rte",
        Example("train-0", "a b", "c d.", "entailment", 0),
        tokenizer,
        sequence_length=128,
        multi_token=True,
    )
    assert 'c d" ? Yes, "a b"' in tokenizer.decode(ids)


def test_blanks_that_the_tokenizer_lacks_a_token_for_are_refused():
    with pytest.raises(UsageError, match="no token dBLOCK"):
        priming(1.0, context_mask_ratio=0.1)
    assert find_task("rte").verbalizers is not None
