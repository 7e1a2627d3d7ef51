"""The settings of blanks validate themselves."""

import dataclasses
import math

import pytest

from glm_jax.data.blanks.config import MIXED_OBJECTIVES, BlankConfig, Objective, num_sentinels
from glm_jax.data.blanks.objectives import OBJECTIVES, check_special, expected_text_length, mask_ids
from glm_jax.errors import UsageError


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"token": -1.0}, "token"),
        ({"sentence": math.nan}, "sentence"),
        ({"document": math.inf}, "document"),
        ({"token": 0.0}, "token"),
        ({"mask_ratio": 0.0}, "mask_ratio"),
        ({"mask_ratio": 1.0}, "mask_ratio"),
        ({"mean_span_length": 0.0}, "mean_span_length"),
        ({"max_span_length": 1}, "max_span_length"),
        ({"minimum_document_ratio": 1.5}, "minimum_document_ratio"),
        ({"unidirectional_probability": -0.1}, "unidirectional_probability"),
        ({"block_mask_probability": 2.0}, "block_mask_probability"),
        ({"single_span_probability": math.nan}, "single_span_probability"),
        ({"sentence_mask_ratio": 0.0}, "sentence_mask_ratio"),
        ({"short_sequence_probability": 1.1}, "short_sequence_probability"),
        ({"context_mask_ratio": -0.1}, "context_mask_ratio"),
        ({"context_mask_range": 0}, "context_mask_range"),
    ],
)
def test_impossible_values(settings, field):
    with pytest.raises(UsageError, match=rf"blanks\.{field}\b.*; expected ") as error:
        BlankConfig(**settings)
    assert "\n" not in str(error.value)


def test_proportions_need_not_add_up_to_one():
    assert BlankConfig(token=5, sentence=3, document=2).proportions == {
        Objective.TOKEN: 0.5,
        Objective.SENTENCE: 0.3,
        Objective.DOCUMENT: 0.2,
    }


def test_every_mixed_objective_is_in_the_table_and_has_a_proportion():
    assert tuple(OBJECTIVES) == MIXED_OBJECTIVES
    fields = {field.name for field in dataclasses.fields(BlankConfig)}
    assert {kind.label for kind in OBJECTIVES} <= fields


def test_mask_tokens_by_objective(special):
    assert mask_ids(BlankConfig(), special) == (special["MASK"],) * 4
    by_task = (special["MASK"], special["sMASK"], special["gMASK"], special["MASK"])
    assert mask_ids(BlankConfig(task_masks=True), special) == by_task
    with pytest.raises(UsageError, match="no token sMASK"):
        mask_ids(BlankConfig(task_masks=True), {"MASK": 5})


@pytest.mark.parametrize(
    ("settings", "missing"),
    [
        ({"block_mask_probability": 0.1}, "dBLOCK"),
        ({"context_mask_ratio": 0.1}, "dBLOCK"),
        ({"sentinels": True}, "MASK1"),
        ({"task_masks": True}, "sMASK"),
    ],
)
def test_settings_need_their_tokens(settings, missing):
    plain = {"MASK": 5, "sop": 6, "eop": 7}
    with pytest.raises(UsageError, match=f"no token {missing};"):
        check_special(BlankConfig(**settings), plain)
    check_special(BlankConfig(), plain)


def test_sentinels_are_pairs(special):
    assert num_sentinels(special) == 0
    pairs = {"MASK1": 20, "sop1": 21, "MASK2": 22, "sop2": 23, "MASK3": 24}
    assert num_sentinels({**special, **pairs}) == 2


@pytest.mark.parametrize("length", [32, 64, 512, 1024])
def test_expected_text_lengths_leave_room(length):
    mixed = BlankConfig(token=1, sentence=1, document=1)
    token, sentence, document = (expected_text_length(kind, mixed, length) for kind in OBJECTIVES)
    assert document == length - 2
    assert 0.75 * length < token <= length - 2
    assert 0.75 * length < sentence <= length - 2
    masked = BlankConfig(masked_lm=True)
    assert expected_text_length(Objective.TOKEN, masked, length) == length
