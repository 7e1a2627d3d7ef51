"""The tables of special ids; the original's are compared in test_recorded.py."""

import pytest

from glm_jax.errors import UsageError
from glm_jax.tokenizer.special import (
    SpecialTokenOptions,
    appended_special_tokens,
    bert_special_tokens,
)


@pytest.mark.parametrize("task_mask", [False, True])
@pytest.mark.parametrize("decoder_mask", [False, True])
@pytest.mark.parametrize("sentinels", [0, 2])
def test_own_tables_have_neither_holes_nor_collisions(task_mask, decoder_mask, sentinels):
    options = SpecialTokenOptions(task_mask, decoder_mask, sentinels=sentinels)
    table = appended_special_tokens(1000, options)
    ids = dict(table.ids)
    assert ids.pop("pad") == ids["eos"] == 1000
    assert sorted(ids.values()) == list(range(1000, table.vocab_size))
    assert ("sMASK" in ids) == ("gMASK" in ids) == task_mask
    assert ("dBLOCK" in ids) == decoder_mask
    assert ("MASK2" in ids) == ("sop2" in ids) == bool(sentinels)
    assert len(table.text_to_id()) == len(set(table.ids.values()))


@pytest.mark.parametrize("options", [{"sentinels": -1}, {"blocks": False, "task_mask": True}])
def test_options_that_make_no_sense_are_refused(options):
    with pytest.raises(UsageError):
        SpecialTokenOptions(**options)


def test_a_vocabulary_of_another_kind_is_refused():
    with pytest.raises(UsageError, match=r"not a BERT vocabulary: it has no piece .*\[CLS\]"):
        bert_special_tokens(3, SpecialTokenOptions(), {"[PAD]": 0, "a": 1, "b": 2})
