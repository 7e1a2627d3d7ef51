"""The settings of blanks validate themselves."""

import math

import pytest

from glm_jax.data.objectives import BlankConfig
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
    ],
)
def test_impossible_values(settings, field):
    with pytest.raises(UsageError, match=rf"blanks\.{field}\b.*\.$") as error:
        BlankConfig(**settings)
    assert "\n" not in str(error.value)


def test_proportions_need_not_add_up_to_one():
    assert BlankConfig(token=5, sentence=3, document=2).proportions == (0.5, 0.3, 0.2)


def test_mask_tokens_by_objective(special):
    assert BlankConfig().mask_ids(special) == (special["MASK"],) * 3
    by_task = (special["MASK"], special["sMASK"], special["gMASK"])
    assert BlankConfig(task_masks=True).mask_ids(special) == by_task
    with pytest.raises(UsageError, match="no token sMASK"):
        BlankConfig(task_masks=True).mask_ids({"MASK": 5})
