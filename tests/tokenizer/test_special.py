"""The tables of special ids, against the original's."""

import json

import pytest

from glm_jax.errors import UsageError
from glm_jax.tokenizer.sentence_piece import SpecialTokenOptions

ORIGINAL_TABLES = {
    "chinese_sp": {},
    "chinese_sp_task_mask": {"task_mask": True},
    "chinese_sp_task_mask_dblock": {"task_mask": True, "decoder_mask": True},
    "chinese_sp_fix_command_token": {"task_mask": True, "fix_command_token": True},
    "chinese_sp_fix_command_token_dblock": {
        "task_mask": True,
        "decoder_mask": True,
        "fix_command_token": True,
    },
}


@pytest.mark.parametrize("name", ORIGINAL_TABLES)
def test_chinese_tables_are_the_originals(shared, name):
    recorded = json.loads((shared / "goldens/e_tokenizers" / f"{name}.json").read_bytes())
    table = SpecialTokenOptions("chinese", **ORIGINAL_TABLES[name]).table(50000)
    assert dict(table.ids) == recorded["name_to_id"]
    assert list(table.ids) == [token["name"] for token in recorded["command_tokens"]]
    assert 50000 + table.num_ids == recorded["num_tokens"]
    assert table.text_to_id() == recorded["token_to_id_last_wins"]


@pytest.mark.parametrize("task_mask", [False, True])
@pytest.mark.parametrize("decoder_mask", [False, True])
def test_own_tables_have_neither_holes_nor_collisions(task_mask, decoder_mask):
    options = SpecialTokenOptions("sentencepiece", task_mask, decoder_mask)
    table = options.table(1000)
    ids = dict(table.ids)
    assert ids.pop("pad") == ids["eos"] == 1000
    assert sorted(ids.values()) == list(range(1000, 1000 + table.num_ids))
    assert ("sMASK" in ids) == ("gMASK" in ids) == task_mask
    assert ("dBLOCK" in ids) == decoder_mask


@pytest.mark.parametrize(
    "options", [{"kind": "bert"}, {"kind": "sentencepiece", "fix_command_token": True}]
)
def test_options_that_no_table_has_are_refused(options):
    with pytest.raises(UsageError, match=options["kind"]):
        SpecialTokenOptions(**options)
