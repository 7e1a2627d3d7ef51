"""Rows and detokenizers of the original's language modelling benchmarks."""

from __future__ import annotations

import json

import numpy as np
import pytest
from etils import epath
from hypothesis import given
from hypothesis import strategies as st

from glm_jax.errors import UsageError
from glm_jax.language_model.detokenize import DETOKENIZERS, wikitext
from glm_jax.language_model.lambada import lambada_row, read_lambada
from glm_jax.language_model.windows import WindowLayout, document_rows
from tests.tasks.recorded import FOLDER, NAMES, tokenizer

recorded_numbers = pytest.mark.skipif(
    not FOLDER.is_dir(), reason="the recorded numbers of the original are not there"
)
# Rows of a plain language model are not GLM's. A stride of the whole window leaves tokens without
# context, or repeats some; we refuse it.
CASES = (
    [
        case
        for case in json.loads((FOLDER / "language_model.json").read_text())
        if case["block_lm"]
        and (case["task"] == "lambda" or case["overlapping_eval"] <= case["seq_length"] - 2)
    ]
    if FOLDER.is_dir()
    else []
)


def rows_of(case: dict) -> list:
    file = epath.Path(FOLDER / case["file"])
    tok, length = tokenizer(case["tokenizer"]), case["seq_length"]
    unidirectional = "--unidirectional" in case["args"]
    if case["task"] == "lambda":
        passages = read_lambada(file)
        return [lambada_row(p, tok, length, unidirectional=unidirectional) for p in passages]
    layout = WindowLayout(tok.special, length, case["overlapping_eval"], unidirectional)
    text = file.read_text()
    documents = [wikitext(text)] if case["task"] == "wikitext" else map(str.strip, text.split("\n"))
    return [row for document in documents for row in document_rows(tok.encode(document), layout)]


@recorded_numbers
@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c['task']}-{c['tokenizer']}-{c['args']}")
def test_rows_are_as_recorded(case):
    rows = rows_of(case)
    assert len(rows) == case["result"]["len"]
    for number, item in case["result"]["items"].items():
        # The original loses the blank of a long passage that is read from left to right.
        for name in set(item) & set(NAMES):
            np.testing.assert_array_equal(rows[int(number)][NAMES[name]], item[name], name)


@recorded_numbers
@pytest.mark.parametrize("name", DETOKENIZERS)
def test_detokenizers_are_as_recorded(name):
    recorded = json.loads((FOLDER / "detokenizers.json").read_text())[name]
    assert DETOKENIZERS[name](recorded["in"]) == recorded["out"]


SPECIAL = {"ENC": 1000, "MASK": 1001, "sop": 1002, "eop": 1003, "eos": 1004}


@given(
    num_tokens=st.integers(0, 60),
    length=st.integers(4, 20),
    stride=st.integers(1, 18),
    unidirectional=st.booleans(),
)
def test_every_token_but_the_first_is_scored_once(num_tokens, length, stride, unidirectional):
    ids = list(range(num_tokens))
    if stride > length - 2:
        with pytest.raises(UsageError, match="stride"):
            WindowLayout(SPECIAL, length, stride, unidirectional)
        return
    layout = WindowLayout(SPECIAL, length, stride, unidirectional)
    rows = list(document_rows(ids, layout))
    scored = [int(id) for row in rows for id in row["targets"][row["loss_mask"] == 1]]
    assert scored == ids[1:]


def test_a_long_passage_keeps_its_end_and_its_blank():
    class Words:
        special = SPECIAL

        def encode(self, text):
            return [int(word) for word in text.split()]

    passage = " ".join(map(str, range(30)))
    for unidirectional in (False, True):
        row = lambada_row(passage, Words(), 10, unidirectional=unidirectional)  # pyright: ignore[reportArgumentType]
        assert SPECIAL["MASK"] in row["tokens"]
        assert row["targets"][row["loss_mask"] == 1].tolist() == [29]
        kept = [id for id in row["tokens"].tolist() if id < 1000]
        assert kept == list(range(23, 29))
